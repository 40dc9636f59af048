"""The options of C-MOVE and C-GET."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class RecentlyFetched(_Model):
    """Say for how long and how much of what was fetched is kept for the next destination; 0 bytes: nothing."""

    size: Annotated[int, Field(ge=0)] = 2_147_483_648
    seconds: Annotated[float, Field(ge=1, le=86_400)] = 600


class Retrieve(_Model):
    """Say how instances are retrieved."""

    cache: RecentlyFetched = RecentlyFetched()
