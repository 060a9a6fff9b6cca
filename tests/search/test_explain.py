import json

import numpy as np
import pytest
from test_search import DEVICE, SPACE, TEACHER, FakeLatency, dataset, run

from edgekd.config import SearchConfig
from edgekd.errors import ConfigError, RunDirectoryError
from edgekd.profile.operators import operators
from edgekd.search.explain import explain
from edgekd.search.scorers import Score

CONFIG = {"scorer": "edgekd", "evaluations": 24, "population": 8, "tournament": 3, "inits": 1, "batch_size": 12}


class PricedOperators(FakeLatency):
    def operator(self, op):
        return op.macs / 1e6


def explained(directory, text, **config):
    settings = {**CONFIG, "max_params": 200_000, **config}
    return explain(
        directory,
        text,
        teacher=TEACHER,
        data=dataset(),
        device=DEVICE,
        config=SearchConfig(**settings),
        seed=0,
        costs=PricedOperators(),
    )


@pytest.fixture
def searched(tmp_path):
    run(tmp_path, latency="2ms", max_params=200_000, **CONFIG)
    return tmp_path


def test_the_chosen_is_first_of_all_legal_ones_with_its_terms(searched):
    record = json.loads((searched / "search.json").read_text())
    found = explained(searched, record["chosen"]["name"])
    assert found["name"] == record["chosen"]["name"] and found["breaks"] is None
    assert found["score"] == pytest.approx(record["chosen"]["score"])
    scores = [Score(*row[1:]) for row in json.loads((searched / "scores.json").read_text())["scores"]]
    assert found["of"] == len(scores)
    terms = {row["term"]: row for row in found["terms"]}
    params = sorted((score.terms["params"] for score in scores), reverse=True)
    assert terms["params"]["rank"] == 1 + params.index(terms["params"]["value"])
    assert found["score"] in [score.value for score in scores]


def test_an_architecture_the_search_never_saw_is_ranked_among_those_it_did(searched):
    found = explained(searched, "depths=9,9,9 widths=64,128,160")
    assert found["terms"][0] == {"term": "params", "value": pytest.approx(np.log(found["params"])), "rank": 1}
    assert found["breaks"].startswith("search.max_params 200,000")
    saw = len(json.loads((searched / "scores.json").read_text())["scores"])
    assert found["of"] == saw + 1
    seen = json.loads((searched / "scores.json").read_text())["scores"]
    name, value, *_ = seen[-1]
    (searched / "scores.json").write_text(json.dumps({"inputs": "", "seconds": 0, "scores": seen[:-1]}))
    assert explained(searched, name)["score"] == pytest.approx(value)  # as the search had it


def test_layers_add_up(searched):
    found = explained(searched, "resnet8")
    assert sum(row["share"] for row in found["layers"]) == pytest.approx(1)
    assert sum(row["count"] for row in found["layers"]) == len(operators(SPACE.network(SPACE.named["resnet8"])))


def test_no_point_and_no_scores_are_errors(searched, tmp_path):
    with pytest.raises(ConfigError, match="--explain: 'resnet9' is not a point"):
        explained(searched, "resnet9")
    (searched / "scores.json").unlink()
    with pytest.raises(RunDirectoryError, match="scored no candidates"):
        explained(searched, "resnet8")
