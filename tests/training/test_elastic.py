"""Several ranks: they learn what one process learns from all their samples, and a refusal in one is told."""

import pytest
import torch
from test_loop import make_objective, run
from training_worlds import RECIPE

from infra.errors import UserError
from training.distributed import Rank
from training.launch import pretrain
from training.loading import load_network
from training.objectives import NoiseObjective


class BothRanks(NoiseObjective):
    """The batches of two ranks as micro-batches of one process."""

    def batch(self, step, micro):
        share = NoiseObjective(self.train, self.validate, self.config, self.schedule, rank=Rank(micro, 2))
        return share.batch(step, 0)


def test_two_ranks_learn_what_one_process_learns_from_the_samples_of_both(tiny_lake, config):
    both = config.train.replace(ranks=2, validation_samples=5, picture_every=2)
    told, pictures = {}, {}
    done = pretrain(
        tiny_lake,
        RECIPE,
        config.replace(train=both),
        on_log=lambda step, values: told.update({step: values}),
        on_picture=lambda step, png: pictures.update({step: png}),
    )
    alone = make_objective(tiny_lake, both)
    objective = BothRanks(alone.train, alone.validate, both, alone.schedule)
    expected = run(tiny_lake, "runs/test/both-ranks", both.replace(accumulate=2), objective=objective)
    assert [record["step"] for record in done.history] == [record["step"] for record in expected.history]
    for record, other in zip(done.history, expected.history, strict=True):
        assert record == pytest.approx(other, rel=1e-3)
    network = load_network(tiny_lake, done.key)[0].state_dict()
    for name, value in expected.average.module.state_dict().items():
        torch.testing.assert_close(network[name], value, atol=2e-4, rtol=1e-2)
    assert sorted(told) == [2, 3, 4, 6]
    assert told[6]["samples_seen"] == 6 * 2 * both.batch_size
    assert sorted(pictures) == [2, 4, 6]
    assert all(png.startswith(b"\x89PNG") for png in pictures.values())


def test_a_refusal_in_a_rank_is_told_as_it_is(tiny_lake, config):
    wrong = config.replace(train=config.train.replace(ranks=2, regions=("head_neck",)))
    with pytest.raises(UserError, match="has no case of region head_neck"):
        pretrain(tiny_lake, RECIPE, wrong)
