"""logger=mlflow: a run in an MLflow tracking store."""

import time
from collections.abc import Mapping

from srp_exp.training.loggers.logger import LoggedRun, Logger, check_installed

_TAG = "srp_exp.run"
_MOST_PARAMETERS = 100
"""Of one call, as MLflow allows."""


class MLflow(Logger):
    """Curves and settings; the tag `srp_exp.run` holds the run's id, by which a resumed run is found.

    experiment: name, made where it doesn't exist. tracking_uri: such as sqlite:///mlflow.db or a server's address;
    None: what MLFLOW_TRACKING_URI says, or MLflow's default.
    """

    def __init__(self, experiment: str, tracking_uri: str | None) -> None:
        check_installed("mlflow", "mlflow")
        self._experiment, self._tracking_uri = experiment, tracking_uri

    def begin(self, run: LoggedRun, step: int) -> None:
        """Resume the run with the tag, or create one. What was logged of later steps stays, and isn't logged twice."""
        from mlflow import MlflowClient  # takes seconds
        from mlflow.entities import Metric, Param

        self._metric, self._client = Metric, MlflowClient(self._tracking_uri)
        experiment = self._client.get_experiment_by_name(self._experiment)
        place = experiment.experiment_id if experiment else self._client.create_experiment(self._experiment)
        found = self._client.search_runs([place], filter_string=f"tags.`{_TAG}` = '{run.id}'")
        if run.afresh and not step:
            for earlier in found:
                self._client.set_tag(earlier.info.run_id, _TAG, f"{run.id} (before rerun=true)")
            found = []
        if found:
            self._id = found[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
        else:
            self._id = self._client.create_run(place, run_name=run.id, tags={_TAG: run.id}).info.run_id
            parameters = [Param(name, str(value)) for name, value in run.settings.items()]
            for start in range(0, len(parameters), _MOST_PARAMETERS):
                self._client.log_batch(self._id, params=parameters[start : start + _MOST_PARAMETERS])
        names = self._client.get_run(self._id).data.metrics
        self._last = {
            name: max(metric.step for metric in self._client.get_metric_history(self._id, name)) for name in names
        }

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        now = int(time.time() * 1000)
        new = {name: value for name, value in values.items() if step > self._last.get(name, -1)}
        self._client.log_batch(self._id, metrics=[self._metric(name, v, now, step) for name, v in new.items()])

    def close(self) -> None:
        self._client.set_terminated(self._id)
