"""Actions that leave the conversation: models, comparison, training, measuring, and the engine's restart."""

import asyncio
from pathlib import Path

from macllm_tui.actions import NO_ADAPTER
from macllm_tui.screens.chat import ChatScreen


async def model(screen: ChatScreen, argument: str) -> None:
    """Chooses a model, by name or on the models screen."""
    if argument:
        await screen.app.use_model(await asyncio.to_thread(screen.app.home.resolve, argument))
    else:
        await screen.app.choose_model()


async def adapter(screen: ChatScreen, argument: str) -> None:
    """Has the model answer with an adapter, or alone; without a name, says which there are."""
    model = screen.require_model()
    if argument:
        named = None if argument == NO_ADAPTER else argument
        await screen.app.use_adapter(named and await asyncio.to_thread(screen.app.home.adapter, named))
        return
    used = f"with {Path(model.adapter).name}" if model.adapter is not None else "without an adapter"
    kept = await asyncio.to_thread(screen.app.home.adapters)
    choice = f"; kept here: {', '.join(kept)}" if kept else "; none is kept here"
    screen.tell(f"{model.name} answers {used}{choice}")


async def explain(screen: ChatScreen, argument: str) -> None:
    """Shows what a model is."""
    from macllm_tui.screens.explain import ExplainScreen

    name = argument or (
        screen.conversation.model.name if screen.conversation.model is not None else "starter"
    )
    await screen.app.push_screen(ExplainScreen(name))


async def bench(screen: ChatScreen, argument: str) -> None:
    """Measures the model in use."""
    from macllm_tui.screens.explain import CommandScreen

    model = screen.require_model()
    await screen.app.push_screen(CommandScreen(f"bench {model.name}", ["bench", "--", model.path]))


async def compare(screen: ChatScreen, argument: str) -> None:
    """One prompt, two models or settings."""
    await screen.app.open_compare(argument or screen.prompt.text)


async def finetune(screen: ChatScreen, argument: str) -> None:
    """Teaches the model from a file."""
    await screen.app.open_finetune()


async def restart(screen: ChatScreen, argument: str) -> None:
    """Starts the engine again and loads the model."""
    await screen.app.restart_engine()
