"""What tests run in a process of its own, to be killed: the training of `conftest`'s config on a lake."""

import os
import sys

from training_worlds import RECIPE

from infra.errors import UserError
from infra.lake import open_lake
from training.config import PretrainConfig
from training.launch import pretrain


def main() -> None:
    """Train; on the step of a given number this process gets a given signal."""
    url, config, step, number = sys.argv[1:]

    def shoot(at, values):
        if at == int(step):
            os.kill(os.getpid(), int(number))

    try:
        pretrain(open_lake(url), RECIPE, PretrainConfig.model_validate_json(config), on_log=shoot)
    except UserError as error:
        sys.exit(f"refused: {error}")


if __name__ == "__main__":
    main()
