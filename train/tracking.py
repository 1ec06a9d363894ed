"""The MLflow run of a training: parameters, the gate's table, the version that is registered."""

from dataclasses import dataclass
from typing import Any

from reco.embedded import Services
from reco.models.registry import register
from train.config import TrainConfig

EXPERIMENT = "reco"


@dataclass(frozen=True, slots=True)
class Tracking:
    """An open run; workers log their epochs to it by its id."""

    uri: str
    run_id: str

    @classmethod
    def start(
        cls, services: Services, name: str, config: TrainConfig, data: dict[str, Any]
    ) -> "Tracking":
        """Begin a run with the configuration and the data report as parameters."""
        from mlflow.tracking import MlflowClient  # 3 s to import: only where a run begins

        client = MlflowClient(tracking_uri=services.mlflow_uri)
        found = client.get_experiment_by_name(EXPERIMENT)
        experiment = (
            found.experiment_id
            if found
            else client.create_experiment(EXPERIMENT, services.artifact_root)
        )
        run = client.create_run(experiment, run_name=name)
        for key, value in {**_flat(config.model_dump()), **_flat({"data": data})}.items():
            client.log_param(run.info.run_id, key, value)
        return cls(services.mlflow_uri, run.info.run_id)

    def register(self, directory: str, table: dict[str, dict[str, float]], why: str) -> str:
        """Log the table, register the artifact, end the run; the number of the version."""
        from mlflow.tracking import MlflowClient

        metrics = {
            f"{row}/{name}": value
            for row, values in table.items()
            for name, value in values.items()
            if value == value
        }
        number = register(directory, self.uri, metrics, self.run_id, {"why": why})
        client = MlflowClient(tracking_uri=self.uri)
        client.log_dict(self.run_id, table, "gate.json")
        client.set_terminated(self.run_id)
        return number


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        out |= _flat(value, f"{key}.") if isinstance(value, dict) else {key: value}
    return out
