"""One thread that answers all visitors' questions to the same models in one batch, a token a step for each."""

from __future__ import annotations

import threading
import time
import weakref
from collections import OrderedDict, deque
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sftdemo.decode import kernels
from sftdemo.errors import UserError
from sftdemo.inference.batch import Batch
from sftdemo.inference.decoding import Chunk, Decoder, Step
from sftdemo.inference.kv_cache import CachedPrefix
from sftdemo.inference.line import MOST_A_SESSION, Line, Place, Question
from sftdemo.inference.request import Request, Side, together
from sftdemo.inference.scheduler import kv_token_budget
from sftdemo.log import LOG

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sftdemo.inference.fair_lock import FairLock

MOST_ANSWERED = 16  # questions at once; more would make each slower, and none end sooner
PREFILL_TOKENS = 256  # of prompts read between two steps, so that a long one doesn't hold up the others' answers
SLICE_S = 0.2  # an evaluation beside the chat gets its turn after so long, for one step of its own
IDLE_S = 2.0  # after loading without a question
PREFIX_BYTES = 2**28  # keys and values kept for next turns of conversations, in all


@dataclass(eq=False)
class Prefill:
    """A question whose prompts are being read: the groups to come, the one at hand, and those that are done."""

    question: Question
    groups: list[tuple[Side, list[Request]]]
    batch: Batch | None = None
    done: list[Batch] = field(default_factory=list)


class Prefixes:
    """What was computed of visitors' conversations, for their next turns: the latest, within PREFIX_BYTES."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, dict[str, CachedPrefix]] = OrderedDict()

    def of(self, session: str) -> Mapping[str, CachedPrefix]:
        return self._kept.get(session, {})

    def keep(self, session: str, side: str, prefix: CachedPrefix) -> None:
        self._kept.setdefault(session, {})[side] = prefix
        self._kept.move_to_end(session)
        while self.bytes > PREFIX_BYTES:
            self._kept.popitem(last=False)

    @property
    def bytes(self) -> int:
        return sum(prefix.bytes for sides in self._kept.values() for prefix in sides.values())


class Engine:
    """Answers questions to the models of `sides`, whoever asks; `lock` is held while it computes.

    A question joins the batch once its prompt is read, and leaves it at its end, or within a step once nobody waits for it.
    """

    tokens = 0  # that all engines have decoded

    def __init__(self, sides: list[Side], lock: FairLock) -> None:
        self.sides, self.lock = sides, lock
        self._changed = threading.Condition()
        self._line = Line()
        self._active: list[Question] = []
        self._reading: deque[Prefill] = deque()
        self._questions: dict[Request, Question] = {}
        self._decoder = Decoder()
        self._prefixes = Prefixes()
        self._seconds: float | None = None  # that a question took lately, from its first token read to its last
        self._budget = 0  # tokens of all rows that there is memory for
        self._retired = False
        self._answered = threading.Event()  # some question, to its end
        self._thread: threading.Thread | None = None

    @property
    def idle(self) -> bool:
        """Whether nothing is asked."""
        with self._changed:
            return not self._active and not len(self._line)

    @property
    def counts(self) -> tuple[int, int]:
        """How many questions are being answered, and how many wait."""
        return len(self._active), len(self._line)

    @contextmanager
    def asked(self, question: Question, most: int = MOST_A_SESSION) -> Iterator[None]:
        """The question waits in line and is answered for as long as this lasts; `most` are what a session may ask at once.

        Raises BusyError when the line is too long, or the visitor's part of it.
        """
        with self._changed:
            if self._retired:
                raise UserError("The model was just unloaded; ask again.")
            self._line.add(question, self._active, most)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="answer", daemon=True)
                self._thread.start()
            self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                question.withdrawn = True
                self._changed.notify()

    def prepare_step(self) -> None:
        """Load the decode step, or compile it, and try it once the first answer is out or nobody asks: none waits for it."""
        if any(side.compiled and side.compiled.deferred for side in self.sides):
            threading.Thread(
                target=_prepare_step, args=(weakref.ref(self), self._answered), name="step", daemon=True
            ).start()

    def retire(self) -> None:
        """Take no more questions and end the thread with the last answer, so that the models' memory can go."""
        with self._changed:
            self._retired = True
            self._answered.set()
            self._changed.notify_all()

    def wait_end(self, seconds: float) -> bool:
        """Whether a retired engine has ended, or does within so many seconds."""
        if self._thread:
            self._thread.join(seconds)
        return not (self._thread and self._thread.is_alive())

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._active or len(self._line)):
                    if self._retired:
                        return
                    self._changed.wait()
            try:
                with self.lock:
                    until = time.monotonic() + SLICE_S
                    while self._work() and time.monotonic() < until:
                        pass
            except Exception as error:  # noqa: BLE001 (a thread has nobody above it to tell)
                LOG.exception("Answering failed")
                self._fail(error)

    def _work(self) -> bool:
        """Read some of the prompts and decode a token of each row; whether there is more to do."""
        self._admit()
        self._leave()
        room = PREFILL_TOKENS
        while self._reading and room > 0:
            room -= self._read(self._reading.popleft())
        for step in self._decoder.step():
            self._take(step)
        for row, prefix in self._decoder.take_ended():
            self._prefixes.keep(self._questions[row].session, row.side, prefix)
        self._questions = {row: question for row, question in self._questions.items() if not row.finish_reason}
        return bool(self._active)

    # The line

    def _admit(self) -> None:
        """Begin with those whose turn it is, while there is room for them."""
        with self._changed:
            for question in filter(lambda question: question.over, self._line):
                self._line.remove(question)
                self._end_all(question)
            if not self._active:
                self._budget = min(kv_token_budget(side.model) for side in self.sides)
            while len(self._active) < MOST_ANSWERED and (order := self._line.in_order(self._active)):
                if not self._begin(order[0]):
                    break
            self._tell_places()

    def _begin(self, question: Question) -> bool:
        """Take a question out of the line, if its tokens fit into memory beside the others'; one that never would is told so."""
        columns = max([question.tokens, *(other.tokens for other in self._active)])
        fits = (len(self._questions) + len(question.rows)) * columns <= self._budget
        if not fits and self._active:
            return False
        self._line.remove(question)
        if not fits:
            question.put(
                UserError(
                    "There is no memory for {n} tokens a side; shorten the conversation, or lower max_new_tokens.",
                    n=question.tokens,
                )
            )
            return True
        question.began = time.monotonic()
        self._active.append(question)
        self._questions |= dict.fromkeys(question.rows, question)
        groups = [
            (side, group)
            for side in self.sides
            if (own := [row for row in question.rows if row.side in side.names])
            for group in together(side, own)
        ]
        self._reading.append(Prefill(question, groups))
        return True

    def _tell_places(self) -> None:
        """Tell those in line how many are before them, where that has changed."""
        for ahead, question in enumerate(self._line.in_order(self._active)):
            seconds = self._seconds * (ahead + 1) / max(len(self._active), 1) if self._seconds else None
            if question.place is None or question.place.ahead != ahead:
                question.place = Place(ahead, seconds)
                question.put(question.place)

    def _leave(self) -> None:
        """Let those go that nobody waits for any more."""
        for question in [question for question in self._active if question.over]:
            for row in question.rows:
                row.finish_reason = row.finish_reason or "stopped"
        for prefill in [prefill for prefill in self._reading if prefill.question.over]:
            self._reading.remove(prefill)
            self._end_all(prefill.question)

    def _end_all(self, question: Question) -> None:
        """End a question of which nothing is decoded."""
        for row in question.rows:
            question.put(Chunk(question.shown[row.side], "", row.tokens, 0.0, "stopped"))
        self._drop(question)

    def _drop(self, question: Question) -> None:
        with self._changed:
            for row in question.rows:
                self._questions.pop(row, None)
            if question in self._active:
                self._active.remove(question)

    # The batch

    def _read(self, prefill: Prefill) -> int:
        """Read the next part of a question's prompts, and decode them with the others once all are read; how many tokens."""
        try:
            tokens = self._read_part(prefill)
        except Exception as error:  # noqa: BLE001 (told to the one who asked; the others go on)
            LOG.exception("Reading a prompt failed")
            prefill.question.put(error)
            self._drop(prefill.question)
            return 0
        if prefill.batch or prefill.groups:
            self._reading.append(prefill)  # the others' prompts come first
        else:
            for batch in prefill.done:
                self._decoder.add(batch)
        return tokens

    def _read_part(self, prefill: Prefill) -> int:
        if prefill.batch is None:
            side, rows = prefill.groups.pop(0)
            most = max(1, PREFILL_TOKENS // len(rows))
            columns = min(most, max(len(row.prompt) for row in rows))
            known = self._prefixes.of(prefill.question.session)
            prefill.batch = batch = Batch(side, rows, known, keep_prefixes=True, most=most)
        else:
            batch = prefill.batch
            columns = min(max(1, PREFILL_TOKENS // len(batch.rows)), batch.unread)
            batch.read(columns)
        if not batch.unread:
            prefill.done.append(batch)
            prefill.batch = None
        return columns * len(batch.rows)

    def _take(self, step: Step) -> None:
        """Tell a question's visitor what one of its rows has gained."""
        row, question = step.row, self._questions[step.row]
        Engine.tokens += step.token is not None
        text = question.texts[row.side].add(step.token) if step.token is not None else ""
        if text or step.finish_reason:
            speed = row.tokens / max(time.monotonic() - question.began, 1e-6)
            question.put(Chunk(question.shown[row.side], text, row.tokens, speed, step.finish_reason))
        if step.finish_reason:
            row.finish_reason = step.finish_reason
            question.open -= 1
            if not question.open:
                self._answered.set()
                took = time.monotonic() - question.began
                self._seconds = took if self._seconds is None else 0.8 * self._seconds + 0.2 * took
                with self._changed:
                    self._active.remove(question)

    def _fail(self, error: Exception) -> None:
        """Tell all that are being answered what went wrong, and begin anew without them."""
        with self._changed:
            lost, self._active = self._active, []
            self._reading, self._questions, self._decoder = deque(), {}, Decoder()
        for question in lost:
            question.put(error)


def _prepare_step(engine: weakref.ref[Engine], answered: threading.Event) -> None:
    """Models that are let go meanwhile aren't held by it."""

    def waits() -> bool:
        return not ((here := engine()) is None or here.idle)

    while not answered.wait(IDLE_S) and waits():
        pass
    if kernels.wait() and (alive := engine()) and not alive._retired:
        with alive.lock:
            for side in alive.sides:
                if side.compiled:
                    side.compiled.deferred = False
                    side.compiled.ready()
