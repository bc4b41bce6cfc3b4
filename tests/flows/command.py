"""The command, called in this process."""

from flows import cli


def call(capsys, *arguments):
    """Exit code, what went to stdout, what went to stderr."""
    code = cli.run([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err
