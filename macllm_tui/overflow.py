"""What happens when a conversation outgrows the model's context: the oldest turns are dropped, or summarised."""

from macllm.engine.events import Done, Failed, Token
from macllm_tui.conversation import Conversation
from macllm_tui.reply import Reply
from macllm_tui.screens.chat import ChatScreen


def dead_end(conversation: Conversation, reply: Reply) -> str:
    """Why no room can be made for a reply, in a sentence; empty where there are turns that can go.

    Without it a chat that drops its oldest turns would ask again and again for what can never fit.
    """
    refused = reply.failure is not None and reply.message.state == "failed"
    dropped = conversation.chat is not None and conversation.chat.overflow == "drop"
    if refused and dropped:
        return "Even without the older turns it does not fit; shorten the message."
    if sum(message.role == "user" for message in conversation.branch) < 2:
        return "No older turn is there to leave out; start a new chat, or use a model with a longer context."
    return ""


async def make_room(screen: ChatScreen, reply: Reply, choice: str) -> None:
    """Does what was chosen and has the reply written, or continued, where there is room again."""
    if choice == "stop":
        return
    if choice == "summarise" and not await _summarise(screen):
        screen.tell("there are too few turns to summarise; the oldest are dropped instead")
        choice = "drop"
    if choice == "drop":
        await screen.conversation.change(overflow="drop")
    message = reply.message
    if message.text:
        await screen.start(await screen.conversation.resume(message.id, message.text))
    else:
        await screen.start(await screen.conversation.retry(message))


async def _summarise(screen: ChatScreen) -> bool:
    """Has the model summarise all but the last turns; keeps the summary with the chat."""
    asked = screen.conversation.summarise()
    if asked is None:
        return False
    stream, until = asked
    screen.tell("summarising the oldest turns")
    pieces: list[str] = []
    async for batch in stream:
        for event in batch:
            screen.feed(event)
            if isinstance(event, Token | Done):
                pieces.append(event.text)
            elif isinstance(event, Failed):
                screen.tell(event.message, severity="error")
                return False
    summary = "".join(pieces).strip()
    if not summary:
        return False
    await screen.conversation.change(summary=summary, summary_until=until)
    return True
