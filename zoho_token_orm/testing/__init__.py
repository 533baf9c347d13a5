"""What others can test with: a contract for anybody's ``TokenStore``, and a Zoho on loopback.

``TokenStoreContract`` needs pytest, which the extra ``testing`` brings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zoho_token_orm.testing.simulator import Call, Hold, SimulatedUser, ZohoSimulator

if TYPE_CHECKING:
    from zoho_token_orm.testing.contract import TokenStoreContract

__all__ = ["Call", "Hold", "SimulatedUser", "TokenStoreContract", "ZohoSimulator"]


def __getattr__(name: str) -> Any:
    if name != "TokenStoreContract":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import pytest

    pytest.register_assert_rewrite("zoho_token_orm.testing.contract")
    from zoho_token_orm.testing.contract import TokenStoreContract

    return TokenStoreContract
