"""Everything that a person can set, read from the environment and .env once, at each entry point."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from serving.records import CopydeskError

MAX_SOCKET_PATH = 107  # bytes, by the kernel
SOCKET_NAME = 36  # vLLM names those that lie beside ours by a UUID
EMBEDDED_MODEL = "SmolLM2-135M-Instruct"  # arrives inside a Python package; see serving.model

_TIME = r"([01]\d|2[0-3]):[0-5]\d"


class Settings(BaseSettings):
    """Fields are named as their environment variables, in lower case."""

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", frozen=True)

    copydesk_home: Path = Field(default=Path("var"), description="database, adapters, models, logs")
    copydesk_model: str = Field(default=EMBEDDED_MODEL, description="base model: a name or a directory")
    copydesk_endpoint: str = Field(default="", description="an engine that somebody else runs; empty starts our own")
    copydesk_endpoint_key: str = Field(default="", repr=False, description="its API key, where it wants one")
    copydesk_endpoint_model: str = Field(
        default="", description="the base model's name there, where it lists several models"
    )
    copydesk_ray_address: str = Field(default="", description="a Ray cluster that runs our engines, host:port")
    copydesk_ray_port: int = Field(default=8000, ge=1, le=65535, description="of Serve's proxy, on 127.0.0.1")
    copydesk_ray_replicas: int = Field(default=0, ge=0, description="engines; 0: one a GPU, or one a machine")
    copydesk_ray_round_processes: int = Field(
        default=1, ge=1, description="of a round there, all on one machine: a GPU each, without GPUs a CPU"
    )
    copydesk_judge_endpoint: str = Field(default="", description="an OpenAI-compatible endpoint that judges texts")
    copydesk_judge_model: str = Field(default="", description="the judging model's name there, where it lists several")
    copydesk_judge_key: str = Field(default="", repr=False, description="its API key, where it wants one")
    copydesk_channel: str = Field(default="", description="Slack channel id that scorecards are posted to")
    copydesk_metrics_port: int = Field(
        default=0, ge=0, le=65535, description="/metrics, /ready and /live on 127.0.0.1; 0 is off"
    )
    copydesk_log: Literal["text", "json"] = Field(default="text", description="lines for people, or JSON lines")
    copydesk_leads: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Slack user ids that may promote"
    )
    copydesk_round_hours: float = Field(default=0, ge=0, description="train every so many hours; 0: not by the clock")
    copydesk_round_pairs: int = Field(default=0, ge=0, description="train when so many new pairs have come; 0: never")
    copydesk_round_window: str = Field(
        default="", pattern=rf"^({_TIME}-{_TIME})?$", description="rounds start only then, such as 22:00-06:00"
    )
    copydesk_round_engine: Literal["", "together", "sleep", "stop"] = Field(
        default="", description="what the engine does while a round runs; empty: what fits (copydesk doctor shows it)"
    )
    slack_bot_token: str = ""
    slack_app_token: str = ""
    slack_api_url: str = "https://slack.com/api/"

    @field_validator("copydesk_leads", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part for part in value.replace(",", " ").split()) if isinstance(value, str) else value

    @property
    def database(self) -> Path:
        return self.copydesk_home / "copydesk.db"

    @property
    def adapters(self) -> Path:
        return self.copydesk_home / "adapters"

    @property
    def models(self) -> Path:
        return self.copydesk_home / "models"

    @property
    def logs(self) -> Path:
        return self.copydesk_home / "logs"

    @property
    def endpoint(self) -> str:
        """Where the model answers: http(s)://…, or unix:///path/of/the/socket for our own engine."""
        cluster = f"http://127.0.0.1:{self.copydesk_ray_port}" if self.copydesk_ray_address else ""
        return self.copydesk_endpoint or cluster or f"unix://{self.engine_socket}"

    @property
    def engine_socket(self) -> Path:
        """A socket in a folder that only its owner enters: nobody else on the machine reaches the engine."""
        path = (self.copydesk_home / "engine" / "engine.sock").resolve()
        if len(str(path.parent).encode()) + 1 + SOCKET_NAME > MAX_SOCKET_PATH:
            name = hashlib.sha256(str(path).encode()).hexdigest()[:16]
            path = Path(tempfile.gettempdir()) / f"copydesk-{os.getuid()}-{name}" / "engine.sock"
        return path


def read_settings() -> Settings:
    """Raises CopydeskError naming the variable that is wrong."""
    try:
        return Settings()
    except ValidationError as error:
        wrong = ", ".join(".".join(str(part) for part in issue["loc"]).upper() for issue in error.errors())
        raise CopydeskError(
            f"These settings cannot be read: {wrong}. Correct them in the environment or .env."
        ) from error
    except UnicodeDecodeError as error:
        raise CopydeskError("The file .env is not UTF-8 text; save it as UTF-8.") from error
    except OSError as error:
        raise CopydeskError(f"The file .env cannot be read ({error.strerror}); run this as its owner.") from error
