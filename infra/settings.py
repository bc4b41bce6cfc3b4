"""Settings: where things are on this machine, read from the environment and never part of a fingerprint."""

import os
from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

URL_SCHEMES = ("s3://", "file://")
WORKER = "MEDDIFF_WORKER"  # set in the processes of a cluster: which of them it is; 0, 1, … on one machine


class Settings(BaseSettings):
    """Paths and addresses, every path absolute; secrets stay in the environment and are never read here."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_prefix="MEDDIFF_", populate_by_name=True)

    home: Path = Field(Path(".meddiff"), validate_default=True)
    lake: str = ""
    dask_address: str = ""
    workers: int = Field(0, ge=0, description="worker processes; 0 = one per core")
    s3_endpoint: str = Field("", validation_alias="AWS_ENDPOINT_URL")
    s3_region: str = Field("us-east-1", validation_alias=AliasChoices("AWS_REGION", "AWS_DEFAULT_REGION"))
    tracking_uri: str = Field("", validation_alias="MLFLOW_TRACKING_URI")

    team: str = Field(
        "", pattern="^[a-z0-9-]*$", description="goes before the names of experiments and models in MLflow"
    )

    features: Path | None = Field(None, description="folder of feature networks' weights; none = <home>/features")

    totalsegmentator: str = Field("", description="its command; empty = looked up on PATH")
    totalsegmentator_device: Literal["gpu", "cpu"] = "gpu"
    totalsegmentator_timeout_s: int = Field(3600, ge=1, description="for one case")
    totalseg_home: Path = Field(
        Path("~/.totalsegmentator"), validate_default=True, validation_alias="TOTALSEG_HOME_DIR"
    )
    totalseg_weights: Path | None = Field(None, validation_alias="TOTALSEG_WEIGHTS_PATH")

    @field_validator("home", "features", "totalseg_home", "totalseg_weights")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        if path is None:
            return None
        return Path(os.path.abspath(path.expanduser()))  # noqa: PTH100 - keeps symbolic links as the user wrote them

    @field_validator("totalsegmentator")
    @classmethod
    def _absolute_command(cls, command: str) -> str:
        return absolute_url(command) if os.sep in command else command

    @property
    def totalsegmentator_weights(self) -> Path:
        """The folder of its weights, found as the tool itself does."""
        return self.totalseg_weights or self.totalseg_home / "nnunet" / "results"

    @property
    def lake_url(self) -> str:
        """The lake's absolute path or url; `<home>/lake` where none is set."""
        return absolute_url(self.lake) if self.lake else str(self.home / "lake")

    def of_team(self, name: str) -> str:
        """A name of MLflow's, as this team has it."""
        return name if not self.team or name.startswith(f"{self.team}-") else f"{self.team}-{name}"

    @property
    def mlflow_uri(self) -> str:
        """MLflow's tracking uri; a SQLite file in the state folder where none is set."""
        return self.tracking_uri or f"sqlite:///{self.home / 'mlflow.db'}"


def absolute_url(url: str) -> str:
    """A url without its last slash; a path made absolute, because a worker process runs in another folder."""
    if url.startswith(URL_SCHEMES):
        return url.rstrip("/")
    return os.path.abspath(Path(url).expanduser())  # noqa: PTH100 - keeps symbolic links as the user wrote them


def load_settings() -> Settings:
    """The settings of this process's environment, read afresh."""
    return Settings()
