"""Bars with their spread, as a small SVG that any browser and any forge shows."""

from __future__ import annotations

from html import escape

from benchmarks.report import Found, Spread, base_speed, batch_per_prompt, loops_per_prompt, seconds, side_speed

Panel = tuple[str, list[tuple[str, Spread | None]]]
WIDTH, LEFT, RIGHT, LINE = 720, 190, 130, 26
OURS, THEIRS, INK = "#2563eb", "#9ca3af", "#111827"


def panels(found: Found) -> list[Panel]:
    """The main comparisons that were measured."""
    peers = ("sftdemo", "TRL", "TRL, packing", "LLaMA-Factory")
    drawn: list[Panel] = [
        ("Training, tokens/s (more is better)", [(p, found.spread("training", p, found.tokens_per_s)) for p in peers]),
        (
            "Chat, tokens/s of a side (more is better)",
            [
                ("sftdemo, both sides", found.spread("chat", "sftdemo", side_speed)),
                ("generate, base alone", found.spread("chat", "generate", base_speed)),
            ],
        ),
        (
            "Evaluation, seconds a prompt, both sides (less is better)",
            [
                ("sftdemo", found.spread("evaluation", "sftdemo", batch_per_prompt)),
                ("two loops of generate", found.spread("evaluation", "generate", loops_per_prompt)),
            ],
        ),
        (
            "First page, seconds (less is better)",
            [(who, found.spread("startup", who, seconds)) for who in ("sftdemo", "hello world")],
        ),
    ]
    return [(title, bars) for title, bars in drawn if any(bar for _, bar in bars)]


def svg(drawn: list[Panel]) -> str:
    """One panel under the other, each with its own scale from 0; a thin line shows least to most."""
    parts, y = [], 12
    for title, bars in drawn:
        scale = (WIDTH - LEFT - RIGHT) / max(bar.high for _, bar in bars if bar)
        y += 14
        parts.append(f'<text x="12" y="{y}" font-weight="bold">{escape(title)}</text>')
        y += 10
        for name, bar in bars:
            middle = y + LINE / 2
            parts.append(f'<text x="{LEFT - 8}" y="{middle + 4}" text-anchor="end">{escape(name)}</text>')
            if bar:
                color = OURS if name.startswith("sftdemo") else THEIRS
                low, high = LEFT + bar.low * scale, LEFT + bar.high * scale
                parts += [
                    f'<rect x="{LEFT}" y="{y + 4}" width="{bar.median * scale:.1f}" height="{LINE - 8}" fill="{color}"/>',
                    f'<path d="M{low:.1f} {middle}H{high:.1f}" stroke="{INK}" stroke-width="1.5"/>',
                    f'<text x="{high + 6:.1f}" y="{middle + 4}">{bar.median:.3g}</text>',
                ]
            else:
                parts.append(f'<text x="{LEFT}" y="{middle + 4}" fill="{THEIRS}">not measured</text>')
            y += LINE
        y += 12
    style = f'font-family="system-ui, sans-serif" font-size="13" fill="{INK}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" height="{y}" {style}>'
    return "\n".join([head, f'<rect width="{WIDTH}" height="{y}" fill="white"/>', *parts, "</svg>", ""])
