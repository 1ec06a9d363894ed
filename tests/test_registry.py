from pathlib import Path

import pytest
import redis as redis_client

from reco.embedded import Services
from reco.errors import ModelMismatch, NotFound
from reco.models.registry import Champion, champion, promote, register, require_champion
from tests.model_world import artifact_of, catalogue_of

# MLflow 3.17 declares its tables in a way that SQLAlchemy 2.1 is about to drop.
pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")


def test_before_the_first_promotion_there_is_no_champion(redis: redis_client.Redis) -> None:
    assert champion(redis) is None
    with pytest.raises(NotFound, match="reco train"):
        require_champion(redis)


def test_promotion_sets_the_alias_and_the_key(
    redis: redis_client.Redis, services: Services, tmp_path: Path
) -> None:
    from mlflow.tracking import MlflowClient

    directory = str(tmp_path / "v7")
    artifact_of(catalogue_of(60)).save(directory)
    client = MlflowClient(tracking_uri=services.mlflow_uri)
    run = client.create_run(client.create_experiment(str(tmp_path), services.artifact_root))

    numbers = [
        register(directory, services.mlflow_uri, {"ndcg": 0.3}, run.info.run_id, {"why": "better"})
        for _ in range(2)
    ]
    promote(redis, services.mlflow_uri, numbers[1], Champion("v7", directory))

    assert int(numbers[1]) == int(numbers[0]) + 1
    assert require_champion(redis) == Champion("v7", directory)
    assert str(client.get_model_version_by_alias("reco", "champion").version) == numbers[1]
    assert client.get_run(run.info.run_id).data.metrics == {"ndcg": 0.3}


def test_a_champion_that_does_not_fit_is_refused(redis: redis_client.Redis, tmp_path: Path) -> None:
    artifact_of(catalogue_of(60)).save(str(tmp_path / "v1"))
    config = tmp_path / "v1" / "config.json"
    config.write_text(config.read_text().replace('"format": 1', '"format": 0'))
    redis.set("reco:meta:champion", f'{{"version": "v1", "directory": "{tmp_path / "v1"}"}}')

    with pytest.raises(ModelMismatch):
        require_champion(redis)
