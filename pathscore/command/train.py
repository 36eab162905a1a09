"""The verb `train`: `python run.py …` or `pathscore train …`."""

from collections.abc import Sequence

from pathscore.command.arguments import parse


def main(words: Sequence[str]) -> int:
    """Parse the words first, and only then import torch."""
    config, call = parse(words, prog="pathscore train")
    from pathscore.runs import job

    done = job.run(config, job.Call(call.out, call.resume, call.quiet))
    if call.report:
        from pathscore.command.diagnose import DiagnoseRequest, report

        report(done.directory, DiagnoseRequest(threads=config.threads or 1, quiet=call.quiet, debug=call.debug))
    return 0
