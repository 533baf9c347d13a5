"""``python -m zoho_token_orm``: the command line."""

from zoho_token_orm.cli import main

main(prog_name="python -m zoho_token_orm")
