"""What is asserted of a page in Chromium: that it is whole and alone, that it fits, that it can be read and printed."""

import base64
import re
import zlib
from pathlib import Path
from typing import Any

import browser

A4 = (8.27, 11.69)
_PRINTED_WIDTH = 680
"""CSS pixels between the margins of an A4 page."""


def assert_whole_and_alone(page: browser.Page, path: Path, pictures: list[str], width: int) -> None:
    """Every picture is drawn, with a title and a caption, its words inside; nothing else is loaded or complained of."""
    page.open(path.as_uri(), width)
    drawn = page.evaluate(
        """[...document.querySelectorAll("figure")].map(figure => {
            const svg = figure.querySelector("svg"), box = svg.getBoundingClientRect();
            const inside = [...svg.querySelectorAll("path, use")].filter(mark => {
                const at = mark.getBoundingClientRect();
                return at.width + at.height > 0 && at.left >= box.left - 2 && at.right <= box.right + 2;
            });
            return {name: svg.getAttribute("aria-labelledby").replace("-title", ""), width: box.width,
                    height: box.height, marks: inside.length, labels: svg.querySelectorAll("text").length,
                    outside: [...svg.querySelectorAll("text")].filter(text => {
                        const at = text.getBoundingClientRect();
                        return at.left < box.left - 1 || at.right > box.right + 1;
                    }).map(text => text.textContent),
                    title: document.getElementById(svg.getAttribute("aria-labelledby")).textContent,
                    caption: figure.querySelector("figcaption").innerText};
        })"""
    )
    assert sorted(picture["name"] for picture in drawn) == pictures
    for place, picture in enumerate(drawn, 1):
        assert picture["width"] > 300, picture
        assert picture["height"] > 100, picture
        assert picture["marks"] > 10, picture
        assert picture["labels"] > 5, picture
        assert picture["outside"] == [], picture
        assert picture["title"], picture
        assert picture["caption"].startswith(f"Figure {place}."), picture
    assert_quiet(page)
    requested = [request["request"]["url"] for request in page.named("Network.requestWillBeSent")]
    assert [url for url in requested if not url.startswith("data:")] == [path.as_uri()]
    ids = page.evaluate('[...document.querySelectorAll("[id]")].map(element => element.id)')
    assert len(ids) == len(set(ids))


def assert_quiet(page: browser.Page) -> None:
    """Nothing is complained of, and no dialog was opened."""
    for event in (
        *("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"),
        "Page.javascriptDialogOpening",
    ):
        assert not page.named(event)


def assert_no_overflow(page: browser.Page) -> None:
    """Nothing reaches over the right edge, also not what a scrolling table would hide."""
    width = page.evaluate("document.documentElement.clientWidth")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    over = page.evaluate(
        """[...document.querySelectorAll("body *")].filter(element => !element.closest("svg *")
            && element.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5)
            .map(element => element.tagName + " " + element.textContent.slice(0, 50))"""
    )
    assert over == []


def too_pale(page: browser.Page) -> list[Any]:
    """Texts whose contrast is below that of WCAG AA, by the colours as they are rendered: words, ratio, colours."""
    return page.evaluate(
        """(() => {
            const parsed = color => color.match(/[\\d.]+/g).map(Number);
            const light = ([r, g, b]) => [r, g, b].map(c => c / 255)
                .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
                .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
            const behind = element => {
                for (let at = element; at; at = at.parentElement) {
                    const color = parsed(getComputedStyle(at).backgroundColor);
                    if (color.length < 4 || color[3] === 1) return color;
                    if (color[3] > 0) return null;
                }
                return [255, 255, 255];
            };
            const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
            while (walker.nextNode()) {
                const node = walker.currentNode, element = node.parentElement, style = getComputedStyle(element);
                const range = document.createRange();
                range.selectNodeContents(node);
                if (!node.data.trim() || !range.getClientRects().length || element.closest("title")) continue;
                const ink = parsed(element.closest("svg") ? style.fill : style.color), paper = behind(element);
                const size = parseFloat(style.fontSize), bold = Number(style.fontWeight) >= 700;
                const [low, high] = [light(ink), paper ? light(paper) : NaN].sort((a, b) => a - b);
                const ratio = (high + 0.05) / (low + 0.05);
                const least = size >= 24 || (bold && size >= 18.66) ? 3 : 4.5;
                if (!(ratio >= least) || (ink.length === 4 && ink[3] < 1) || Number(style.opacity) < 1)
                    found.push([node.data.trim().slice(0, 40), ratio, String(ink), String(paper)]);
            }
            return found;
        })()"""
    )


def press(page: browser.Page, key: str) -> None:
    """Press and release a key, as a hand does."""
    code, text = {"Tab": (9, ""), "Enter": (13, "\r"), " ": (32, " ")}[key]
    for kind in ("keyDown", "keyUp"):
        more = {"text": text} if text and kind == "keyDown" else {}
        page.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **more)


def printed(page: browser.Page) -> list[str]:
    """What each page of the page on A4 paper draws, as the operators of PDF; the page must be open.

    Before, at the width of the paper, nothing may reach over its edge.
    """
    page.call("Emulation.setEmulatedMedia", media="print")
    page.call(
        "Emulation.setDeviceMetricsOverride", width=_PRINTED_WIDTH, height=1000, deviceScaleFactor=1, mobile=False
    )
    try:
        assert_no_overflow(page)
        assert too_pale(page) == []
    finally:
        page.call("Emulation.setEmulatedMedia", media="")
    width, height = A4
    answer = page.call("Page.printToPDF", paperWidth=width, paperHeight=height, printBackground=True)
    return pages_of(base64.b64decode(answer["data"]))


def pages_of(pdf: bytes) -> list[str]:
    """The contents of the pages of a PDF as Chromium writes it, in order; each is A4."""
    objects = {int(number): body for number, body in re.findall(rb"(?s)(?:^|\n)(\d+) 0 obj\n(.*?)\nendobj", pdf)}
    leaves = [body for _, body in sorted(objects.items()) if re.search(rb"/Type\s*/Page\b", body)]
    found = []
    for leaf in leaves:
        box = re.search(rb"/MediaBox\s*\[([^\]]*)\]", leaf)
        assert box is not None
        sides = [round(float(side)) for side in box[1].split()]
        assert sides[:2] == [0, 0]
        assert abs(sides[2] - 595) <= 1, sides
        assert abs(sides[3] - 842) <= 1, sides
        contents = re.search(rb"/Contents\s*(\d+) 0 R", leaf)
        assert contents is not None
        stream = objects[int(contents[1])].partition(b"stream\n")[2].rpartition(b"\nendstream")[0]
        found.append(zlib.decompress(stream).decode("latin-1"))
    return found


def texts_of(content: str) -> int:
    """How many times a page of a PDF shows text."""
    return len(re.findall(r"\bT[jJ]\b", content))
