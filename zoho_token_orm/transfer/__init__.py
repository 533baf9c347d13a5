"""In from FileStore, DBStore, the SQLite sample and this store's own tables; out to FileStore."""

from zoho_token_orm.transfer.exporting import export_tokens
from zoho_token_orm.transfer.importing import ImportSummary, import_tokens
from zoho_token_orm.transfer.records import Refusal
from zoho_token_orm.transfer.tables import SOURCE_KEYS_VARIABLE

__all__ = [
    "SOURCE_KEYS_VARIABLE",
    "ImportSummary",
    "Refusal",
    "export_tokens",
    "import_tokens",
]
