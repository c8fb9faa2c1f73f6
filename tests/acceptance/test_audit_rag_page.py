"""What the deployed stack lets see of its work, and its chat page, looked at from outside."""

import json

import pytest

from tests.acceptance.test_rag_page import DONE, faults, page
from tests.acceptance.test_rag_questions import FIRST_HALF, QUESTION, chat, rag
from tests.support.chromium import FOUND
from tests.support.forms import posted
from tests.support.server import wait_for

__all__ = ["chat", "faults", "page", "rag"]

PLATFORM_LINES = ("START ", "END ", "REPORT ", "INIT_START ", "INIT_REPORT ", "RESTORE_START ", "RESTORE_REPORT ")
browsing = pytest.mark.skipif(FOUND is None, reason="there is no Chromium on this machine")


def lines_of(rag):
    """(function, line) of all that the stack's functions have logged, without the platform's own lines."""
    logs = rag.server.client("logs")
    found = []
    for group in logs.describe_log_groups()["logGroups"]:
        function = group["logGroupName"].rpartition("/")[2].split("-")[1]
        pages = logs.get_paginator("filter_log_events").paginate(logGroupName=group["logGroupName"])
        events = [event["message"] for page in pages for event in page["events"]]
        found += [(function, one) for one in events if not one.startswith(PLATFORM_LINES)]
    return found


def steps_of(rag, correlation):
    """{function: [steps, or messages of lines that are none]} of a correlation id."""
    found = {}
    for function, text in lines_of(rag):
        line = json.loads(text)
        if line["correlation"] == correlation:
            found.setdefault(function, []).append(line.get("step") or line["message"])
    return found


def asked(rag, correlation, question=QUESTION, **more):
    headers = {"x-correlation-id": correlation, **more}
    status, got, body = rag.http("AskUrl", "POST", "/ask", {"question": question}, headers)
    assert (status, got.get("x-correlation-id")) == (200, correlation), body
    return json.loads(body.decode().rpartition("event: done\ndata: ")[2])


# -- the page ---------------------------------------------------------------------------------------------------------


@browsing
def test_an_answer_that_the_page_was_left_in_is_found_again_after_a_reload(rag, page):
    rag.deploy(GenerationModelId="test.held-back")
    rag.seen.clear()
    try:
        page.open()
        page.begin(QUESTION, FIRST_HALF)
        session = page.evaluate("location.hash.slice(1)")
        page.browser.call("Page.reload")
        page.wait("performance.getEntriesByType('navigation')[0].type === 'reload'")
        page.wait_text(".step", "Still being answered")
        assert page.text(".question") == QUESTION and page.evaluate("location.hash.slice(1)") == session
        rag.seen.set()
        page.wait(DONE % 1)
        assert page.text(".answer .text").startswith(FIRST_HALF) and len(page.texts(".turn")) == 1
        assert page.evaluate("sessionStorage.length") == 0
    finally:
        rag.seen.set()
        rag.deploy()


UNREADABLE = r"""(() => {
  const linear = (c) => (c /= 255) <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => .2126 * linear(r) + .7152 * linear(g) + .0722 * linear(b);
  const read = (text) => {
    const n = text.match(/[\d.]+/g).map(Number), unit = text.startsWith('color(') ? 255 : 1;
    return [n[0] * unit, n[1] * unit, n[2] * unit, n[3] ?? 1];
  };
  const over = (top, under) => [0, 1, 2].map((at) => top[at] * top[3] + under[at] * (1 - top[3])).concat(1);
  const ground = (node) => {
    const layers = [];
    for (let one = node; one; one = one.parentElement) layers.unshift(read(getComputedStyle(one).backgroundColor));
    return layers.reduce((under, top) => over(top, under), [255, 255, 255, 1]);
  };
  const ratio = (one, other) => {
    const [high, low] = [light(one), light(other)].sort((a, b) => b - a);
    return (high + .05) / (low + .05);
  };
  const found = [];
  let seen = 0;
  const look = (node, what, pseudo) => {
    if (!node.checkVisibility({ opacityProperty: true, visibilityProperty: true }) || node.closest('.unseen')) return;
    seen += 1;
    const style = getComputedStyle(node, pseudo), under = ground(node);
    const told = ratio(over(read(style.color), under), under);
    const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && +style.fontWeight >= 700);
    if (told < (large ? 3 : 4.5)) found.push(`${what}: ${told.toFixed(2)}`);
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const text = texts.currentNode;
    if (text.data.trim() && !text.parentElement.matches('script, style')) look(text.parentElement, text.data.trim());
  }
  for (const field of document.querySelectorAll('[placeholder]')) look(field, field.placeholder, '::placeholder');
  for (const field of document.querySelectorAll('.box, input')) {
    if (!field.checkVisibility()) continue;
    const edge = ratio(read(getComputedStyle(field).borderTopColor), ground(field.parentElement));
    if (edge < 3) found.push(`the edge of ${field.className || field.id || field.name}: ${edge.toFixed(2)}`);
  }
  return { seen, found };
})()"""


@browsing
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_text_can_be_read_in_both_themes(rag, page, theme):
    """WCAG's ratios: 4.5 for text and what stands in empty fields, 3 for large text and the edges of fields."""
    page.emulate(prefers_color_scheme=theme)
    page.open()
    looked = 0

    def look(where):
        nonlocal looked
        found = page.evaluate(UNREADABLE)
        assert not found["found"], where
        looked += found["seen"]

    page.wait("document.querySelector('#empty').hidden === false")
    look("the empty page")
    page.ask(QUESTION)
    page.evaluate("document.querySelector('details').open = true")
    page.click("[aria-label='Good answer']")
    page.wait("!document.querySelector('#toast').hidden && !document.querySelector('.comment').hidden")
    page.evaluate("document.querySelector('#question').focus()")
    look("an answer that was rated")
    page.click(".cite")
    page.wait("document.querySelector('#reader-text .target mark') !== null")
    look("a document")
    page.press("Escape")
    page.click("#open-documents")
    page.wait("document.querySelectorAll('#document-list li').length >= 3")
    look("the documents")
    page.press("Escape")
    for button in ("#open-keys", "#open-key", "#sessions .current .quiet"):
        page.click(button)
        page.wait("document.querySelector('dialog[open]') !== null")
        look(button)
        page.press("Escape")
        page.wait("document.querySelector('dialog[open]') === null")
    assert looked > 200


@browsing
def test_by_keyboard_alone_from_the_first_tab_to_a_citation_and_back(page):
    page.open()
    page.ask(QUESTION)
    page.wait("document.querySelectorAll('#sessions li').length === 1")
    page.evaluate("document.activeElement.blur()")
    page.browser.call("Page.bringToFront")
    page.evaluate("document.querySelector('.skip').focus()")
    assert page.evaluate("document.querySelector('.skip').getBoundingClientRect().top") >= 0
    page.press("Enter")
    page.wait("document.activeElement.id === 'scroller'")
    page.key("Tab")
    assert page.focused() == "cite"
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Source 1: Food (heron.md)"
    ring = "(() => { const style = getComputedStyle(document.activeElement);" \
           " return [style.outlineStyle, style.outlineWidth]; })()"  # fmt: skip
    assert page.evaluate(ring) == ["solid", "2px"]
    page.press("Enter")
    page.wait("document.querySelector('#reader').open && document.activeElement.id === 'reader-text'")
    page.wait("document.querySelector('#reader-text .target mark') !== null")
    page.press("Escape")
    page.wait("!document.querySelector('#reader').open && document.activeElement.className === 'cite'")
    for _ in range(12):
        page.key("Tab")
        if page.focused() == "question":
            break
    assert page.focused() == "question"
    assert page.evaluate("getComputedStyle(document.querySelector('.box')).outlineStyle") == "solid"


WIDE = """[...document.querySelectorAll('body *')].filter((one) => one.checkVisibility() && one.getClientRects().length
  && one.getBoundingClientRect().right > innerWidth + 1 && !one.closest('.wide, pre, .unseen, svg'))
  .map((one) => `${one.tagName} ${one.id || one.className}`)"""
AWKWARD = """# Rates

| Plan | Price a month | Requests a minute | Support | Region | Notes |
|---|---|---|---|---|---|
| Quokka | 9000 euro | 17 | gold | eu-central-1 | {word} |

The quokka plan costs 9000 euro a month. See {word} for it.

```python
quokka({arguments})
```
""".format(word="averylongword" * 14, arguments=", ".join(f"argument_{n}={n}" for n in range(40)))


@browsing
@pytest.mark.parametrize(("width", "height"), [(390, 844), (320, 640), (640, 400)])
def test_long_words_tables_and_code_fit_a_phone_and_twice_the_size(rag, page, width, height):
    """640 by 400 is a window of 1280 by 800 at 200 %."""
    if not rag.row("rates.md"):
        rag.put("rates.md", AWKWARD)
    page.browser.call(
        "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=2, mobile=width < 640
    )
    page.open()
    page.ask("What does the quokka plan cost a month?")
    assert page.evaluate(WIDE) == [] and page.evaluate("document.documentElement.scrollWidth") == width
    page.click(".cite")
    for part in (".wide table", "pre", "mark"):
        page.wait(f"document.querySelector('#reader-text {part}') !== null")
    assert page.evaluate(WIDE) == []
    place = page.evaluate(
        "(({ top, bottom }) => [top, bottom])(document.querySelector('#reader-text mark').getBoundingClientRect())"
    )
    assert 0 <= place[0] < place[1] <= height
    page.press("Escape")
    page.wait("!document.querySelector('#reader').open")
    assert page.evaluate("document.querySelector('#scroller').clientHeight") > height / 3


@browsing
def test_the_place_in_a_very_long_document_is_marked_and_in_sight(rag, page):
    parts = [f"## Section {n}\n\n" + f"Valve number {n} has a spring and a seat. " * 8 for n in range(150)]
    parts[100] += "\n\nThe zirconium gasket is replaced every 777 hours."
    rag.put("manual.md", "# Manual\n\n" + "\n\n".join(parts))
    page.open()
    page.ask("How often is the zirconium gasket replaced?")
    page.click(".cite")
    page.wait("document.querySelectorAll('#reader-text section').length >= 150")
    assert page.texts("#reader-text mark") == ["The zirconium gasket is replaced every 777 hours."]
    top, bottom, height = page.evaluate(
        "(({ top, bottom }) => [top, bottom, innerHeight])"
        "(document.querySelector('#reader-text mark').getBoundingClientRect())"
    )
    assert 0 < top < bottom < height and page.evaluate("document.querySelector('#reader-text').scrollTop") > 5_000


@browsing
def test_more_chats_than_a_page_of_them_can_be_reached(rag, page):
    page.open()
    visitor = page.wait("localStorage.getItem('rag.visitor')")
    table = rag.server.resource("dynamodb").Table(rag.outputs["SessionsTableName"])
    page.ask(QUESTION)
    (mine,) = [one for one in table.scan()["Items"] if one["item"] == "head" and visitor in str(one["owner"])]
    with table.batch_writer() as writer:
        for number in range(70):
            one = {"session": f"s-{number}", "title": f"Chat {number}", "updated": mine["updated"] - number - 1}
            writer.put_item(Item={**mine, **one})
    page.browser.call("Page.reload")
    page.wait("document.querySelectorAll('#sessions li').length === 50")
    assert page.text("#sessions li:last-child span") == "Chat 48"
    page.click("#sessions-more")
    page.wait("document.querySelectorAll('#sessions li').length === 71")
    assert page.text("#sessions li:last-child span") == "Chat 69"
    assert page.evaluate("document.querySelector('#sessions-more').hidden") and not page.browser.errors
    assert rag.http("AskUrl", "GET", "/sessions?next=nonsense", headers={"x-visitor": visitor})[0] == 400


@browsing
def test_stopping_while_the_documents_are_searched_asks_no_model(rag, page, faults):
    rag.deploy(GenerationModelId="test.held-back")
    rag.seen.set()
    try:
        faults(service="bedrock-runtime", operation="InvokeModel", error="delay", ms=8_000)
        page.open()
        page.send("Where do herons nest?")
        page.wait("location.hash.length > 1")
        assert page.text(".step") == "Searching the documents"
        page.press("Escape")
        page.wait_text(".notice", "Stopped.")
        session = page.evaluate("location.hash.slice(1)")
        path = f"/sessions/{session}"
        headers = {"x-visitor": page.evaluate("localStorage.getItem('rag.visitor')")}
        wait_for(lambda: rag.http("AskUrl", "GET", path, headers=headers)[0] == 200, what="the turn being kept")
        (turn,) = json.loads(rag.http("AskUrl", "GET", path, headers=headers)[2])["turns"]
        assert turn["status"] == "cancelled" and turn["answer"] == ""
        steps = wait_for(lambda: steps_of(rag, turn["correlation"]).get("AskFunction"), what="the turn's lines")
        assert "generation" not in steps
    finally:
        rag.deploy()


# -- seeing: these move the platform's clock, which functions do not see ----------------------------------------------


def test_every_line_of_every_function_has_a_correlation_id(rag, faults):
    """The stream, the queue, an upload, a poison document, a turn that is recovered, the nightly comparison."""
    done = asked(rag, "see-stream")
    assert done["correlation"] == "see-stream"
    headers = {"x-correlation-id": "see-queue"}
    job = json.loads(rag.http("QuestionsUrl", "POST", "/questions", {"question": QUESTION}, headers)[2])
    for name, body in (("gull.md", b"# Gulls\n\nGulls steal chips."), ("poison.pdf", b"nothing")):
        headers = {"x-correlation-id": f"see-{name}"}
        place = json.loads(rag.http("AskUrl", "POST", "/uploads", {"name": name}, headers)[2])
        assert posted(place["url"], place["fields"], body)[0] == 204
    faults(service="dynamodb", operation="PutItem", error="deny", caller="rag-AskFunction", count=1)
    asked(rag, "see-recovered")
    rag.server.get("/_preheat/faults", "DELETE")
    wait_for(lambda: json.loads(rag.http("QuestionsUrl", "GET", f"/questions/{job['id']}")[2])["status"] == "done",
             what="the job")  # fmt: skip
    wait_for(lambda: rag.count("IngestDeadLettersUrl") or rag.server.advance(1_800), what="the dead letter")
    wait_for(lambda: "PersistFunction" in steps_of(rag, "see-recovered"), what="the recovered turn")
    told = lines_of(rag)
    assert {"AskFunction", "SubmitFunction", "WorkerFunction", "IngestFunction", "PersistFunction",
            "MaintainFunction"} <= {function for function, _ in told}  # fmt: skip
    without = [(function, one) for function, one in told if not json.loads(one).get("correlation")]
    assert not without
    wanted = {"guardrail", "embed", "search", "rerank", "retrieval", "generation", "verification", "answered"}
    assert wanted <= set(steps_of(rag, "see-stream")["AskFunction"])
    assert "queued" in steps_of(rag, "see-queue")["SubmitFunction"]
    assert wanted <= set(steps_of(rag, "see-queue")["WorkerFunction"])
    assert {"a place for a document"} == set(steps_of(rag, "see-gull.md")["AskFunction"])
    assert set(steps_of(rag, "see-gull.md")["IngestFunction"]) == {"ingest"}
    assert {"ingest", "ingest failed"} <= set(steps_of(rag, "see-poison.pdf")["IngestFunction"])
    assert "a turn was recovered" in steps_of(rag, "see-recovered")["PersistFunction"]


@browsing
def test_the_browsers_own_id_leads_to_a_trace_with_steps_scores_tokens_and_cost(rag, page):
    """Also where the platform's clock was moved, and the browser's was not."""
    rag.server.advance(3_600)
    page.open(QUESTION)
    page.wait(DONE % 1)
    correlation = page.evaluate("document.querySelector('a.trace').href").split("/")[-2]
    assert len(correlation) == 32
    view = wait_for(lambda: traced(rag, correlation), what="the trace")
    steps = {one["step"]: one["ms"] for one in view["lines"] if one["step"]}
    assert {"embed", "search", "rerank", "retrieval", "generation", "verification"} <= set(steps)
    assert steps["embed"] + steps["search"] + steps["rerank"] <= steps["retrieval"]
    assert view["cost_usd"] == 0 and view["tokens"]["input"] > 100
    assert view["passages"][0]["id"] == "heron.md#0" and 0 < view["passages"][0]["score"] <= 1
    page.browser.open(page.evaluate("document.querySelector('a.trace').href"))
    page.wait("document.querySelector('.facts')?.textContent.includes('USD')")


def traced(rag, correlation):
    view = json.loads(rag.server.get(f"/_preheat/console/trace?correlation={correlation}")[2])
    return view if any(one["message"] == "answered" for one in view["lines"]) else None
