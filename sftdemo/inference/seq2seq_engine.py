"""One thread that answers all visitors' questions to the same sequence-to-sequence models, one question after another."""

from __future__ import annotations

import time
from dataclasses import replace

from sftdemo.inference import seq2seq
from sftdemo.inference.decoding import Chunk
from sftdemo.inference.engine import Engine
from sftdemo.inference.line import Question
from sftdemo.log import LOG


class Seq2SeqEngine(Engine):
    """An engine whose questions are answered whole, in turns: a target is short, and `generate` takes no others in."""

    def _work(self) -> bool:
        """Answer the question whose turn it is; whether more wait."""
        with self._changed:
            for question in filter(lambda question: question.over, self._line):
                self._line.remove(question)
                self._end_all(question)
            if not (order := self._line.in_order(self._active)):
                return False
            question = order[0]
            self._line.remove(question)
            self._active.append(question)
            self._tell_places()
        question.began = time.monotonic()
        try:
            self._answer(question)
        except Exception as error:  # noqa: BLE001 (told to the one who asked; the others go on)
            LOG.exception("Answering failed")
            question.put(error)
        took = time.monotonic() - question.began
        self._seconds = took if self._seconds is None else 0.8 * self._seconds + 0.2 * took
        self._drop(question)
        return bool(len(self._line))

    def _answer(self, question: Question) -> None:
        """Write what each side answers; those in line are told meanwhile where they stand."""

        def put(chunk: Chunk) -> None:
            Engine.tokens += bool(chunk.text)
            question.put(replace(chunk, side=question.shown[chunk.side]))
            with self._changed:
                self._tell_places()

        for row in question.rows:
            side = next(side for side in self.sides if row.side in side.names)
            seq2seq.write(side, row, question.texts[row.side], put, lambda: question.over)
