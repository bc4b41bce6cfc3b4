"""The model: networks, objectives, samplers and the loop."""
