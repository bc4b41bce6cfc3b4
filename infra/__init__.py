"""Where things are: settings, the lake, the cluster, the tracking server."""
