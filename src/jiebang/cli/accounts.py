"""`jiebang accounts`: make people, and load people made here or elsewhere."""

import typer

commands = typer.Typer(no_args_is_help=True)


@commands.callback()
def _group() -> None:
    pass


async def load_people(*a, **k):
    raise NotImplementedError
