"""The chat page in a real browser: streaming text, citations in their documents, chats, files brought in, feedback,
stopping, keys and limits, the keyboard, what it calls its controls, themes, a phone's width."""

import json
import sys
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.acceptance.test_rag_questions import FIRST_HALF, QUESTION, QUOTE, chat, rag
from tests.support.chromium import FOUND, Browser
from tests.support.server import wait_for

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "stacks" / "rag"))

from ragkit.identity import digest, new_key

pytestmark = pytest.mark.skipif(FOUND is None, reason="there is no Chromium on this machine")

__all__ = ["chat", "rag"]
DESKTOP, PHONE = 1_280, 360
DONE = "document.querySelectorAll('.answer[aria-busy=false] .foot').length === %d"
ALT = 1
CODES = {"n": ("KeyN", 78), "o": ("KeyO", 79), "1": ("Digit1", 49), "?": ("Slash", 191), "Tab": ("Tab", 9),
         "ArrowUp": ("ArrowUp", 38)}  # fmt: skip
CONTROLS = ("button", "link", "textbox", "searchbox", "checkbox", "combobox", "DisclosureTriangle", "dialog",
            "progressbar")  # fmt: skip


class Page:
    """The chat page in a tab."""

    def __init__(self, browser, rag):
        self.browser, self.rag = browser, rag
        self.evaluate, self.wait, self.press, self.type = (
            browser.evaluate, browser.wait, browser.press, browser.type
        )  # fmt: skip
        self.url = rag.platform.at_path(rag.outputs["AskUrl"])

    def open(self, question="", url=None):
        self.browser.open(f"{url or self.url}?q={quote(question)}" if question else url or self.url)
        self.wait("document.readyState === 'complete' && document.documentElement.dataset.theme !== undefined")

    def ask(self, question, answers=1):
        """Type a question; wait until so many answers are there."""
        self.send(question)
        self.wait(DONE % answers)

    def begin(self, question, part):
        """Type a question; wait until this much of its answer is there."""
        self.send(question)
        self.wait(f"document.querySelector('.answer .text')?.textContent === {json.dumps(part)}")

    def send(self, question):
        self.evaluate("document.querySelector('#question').focus()")
        self.type(question)
        self.press("Enter")

    def text(self, selector):
        return self.evaluate(f"document.querySelector({json.dumps(selector)})?.textContent")

    def wait_text(self, selector, part):
        self.wait(f"document.querySelector({json.dumps(selector)})?.textContent.includes({json.dumps(part)})")

    def click(self, selector):
        self.wait(f"document.querySelector({json.dumps(selector)}) !== null")
        self.evaluate(f"document.querySelector({json.dumps(selector)}).click()")

    def texts(self, selector):
        return self.evaluate(f"[...document.querySelectorAll({json.dumps(selector)})].map((one) => one.textContent)")

    def key(self, name, modifiers=0):
        code, number = CODES[name]
        text = {"text": name} if len(name) == 1 and not modifiers else {}
        common = {"key": name, "code": code, "windowsVirtualKeyCode": number, "modifiers": modifiers}
        self.browser.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", **common, **text)
        self.browser.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def focused(self):
        return self.evaluate("document.activeElement.id || document.activeElement.className")

    def emulate(self, **features):
        given = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.browser.call("Emulation.setEmulatedMedia", features=given)

    def offline(self, cut):
        self.browser.call("Network.enable")
        speed = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        self.browser.call("Network.emulateNetworkConditions", offline=cut, **speed)

    def width(self, width):
        self.browser.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=740, deviceScaleFactor=1, mobile=width == PHONE
        )

    def nameless(self):
        """Controls of the accessibility tree that have no name."""
        nodes = self.browser.call("Accessibility.getFullAXTree")["nodes"]
        seen = [one for one in nodes if not one.get("ignored") and one.get("role", {}).get("value") in CONTROLS]
        assert len(seen) >= 2
        return [one for one in seen if not one.get("name", {}).get("value")]

    def fits(self):
        places = "body, #page, #scroller, #form, dialog[open], dialog[open] .body, #reader-text"
        every = f"[...document.querySelectorAll('{places}')].every((one) => one.scrollWidth <= innerWidth)"
        return self.evaluate(f"{every} && innerWidth") or 0


@pytest.fixture
def page(tmp_path, rag):
    browser = Browser(tmp_path / "profile", DESKTOP)
    yield Page(browser, rag)
    browser.close()


@pytest.fixture
def faults(rag):
    """Add a fault to the platform; all are gone afterwards."""

    def add(**fault):
        assert rag.server.get("/_preheat/faults", "POST", json.dumps(fault).encode())[0] == 200

    yield add
    rag.server.get("/_preheat/faults", "DELETE")


def key_of(rag, owner, **allowance):
    key = new_key()
    table = rag.server.resource("dynamodb").Table(rag.outputs["AccessTableName"])
    table.put_item(Item={"id": digest(key), "owner": owner, "labels": [], **allowance})
    return key


# -- asking -----------------------------------------------------------------------------------------------------------


def test_examples_are_offered_and_asked(rag, page):
    rag.deploy(ExampleQuestions=f"{QUESTION}|When do swifts sleep?")
    try:
        page.open()
        page.wait("document.querySelectorAll('#examples button').length === 2")
        assert page.texts("#examples button") == [QUESTION, "When do swifts sleep?"]
        page.click("#examples button")
        page.wait(DONE % 1)
        assert page.text(".question") == QUESTION and page.text("#title") == QUESTION
        assert page.text(".answer .text").startswith(QUOTE)
        assert page.evaluate("/first token \\d+ ms · all \\d+ ms/.test(document.querySelector('.timing').textContent)")
        assert not page.browser.errors
    finally:
        rag.deploy()


def test_the_page_runs_nothing_but_its_own_files(rag, page):
    _, headers, _ = rag.http("AskUrl", "GET", "/")
    policy = headers["content-security-policy"]
    assert "unsafe" not in policy and f"connect-src 'self' {rag.server.endpoint}" in policy
    page.open()
    script = "Object.assign(document.createElement('script'), {textContent: 'window.ran = 1'})"
    page.evaluate(f"document.body.append({script})")
    assert page.evaluate("window.ran === undefined")


def test_an_answers_markup_becomes_nodes_and_never_html(page):
    page.open()
    said = "# Head\n\nA **bold** `x < y` *word* <img src=x onerror=boom()> [1, 2] [9].\n\n- one\n- two [1]\n\n" \
           "3. three\n\n```py\n<b>a</b>\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"  # fmt: skip
    page.evaluate(
        "window.shown = null; import(new URL('web/show.js', location)).then(({ renderAnswer, element }) => {"
        " const node = element('div');"
        " const cite = (n, said) => n < 3 ? element('button', 'cite', `${n}`) : null;"
        f" renderAnswer(node, {json.dumps(said)}, cite); window.shown = node.innerHTML; }})"
    )
    assert page.wait("window.shown") == (
        "<h4>Head</h4><p>A <strong>bold</strong> <code>x &lt; y</code> <em>word</em> &lt;img src=x onerror=boom()&gt; "
        '<button class="cite" type="button">1</button><button class="cite" type="button">2</button> [9].</p>'
        '<ul><li>one</li><li>two <button class="cite" type="button">1</button></li></ul><ol start="3"><li>three</li>'
        '</ol><pre><code>&lt;b&gt;a&lt;/b&gt;</code></pre><div class="wide"><table><tr><th>a</th><th>b</th></tr><tr>'
        "<td>1</td><td>2</td></tr></table></div>"
    )


@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_a_citation_opens_its_passage_marked_in_the_whole_document(page, width):
    page.width(width)
    page.open(QUESTION)
    page.wait(DONE % 1)
    assert page.text(".sources span") == "Food" and page.text(".sources small") == "heron.md"
    page.evaluate("document.querySelector('.cite').focus()")
    page.click(".cite")
    page.wait("document.querySelectorAll('#reader-text section').length === 2")
    assert page.text("#reader-title") == "Herons" and page.text("#reader-source") == "[1] heron.md"
    assert page.texts("#reader-text h3") == ["Food", "Nests"]
    assert page.texts("#reader-text .target mark") == [QUOTE] == page.texts("#reader-text mark")
    assert page.text("#reader-note") == "" and page.focused() == "reader-text"
    assert page.fits() == width and not page.nameless()
    page.press("Escape")
    page.wait("!document.querySelector('#reader').open")
    assert page.focused() == "cite"
    assert not page.browser.errors


def test_quotes_are_marked_where_the_service_says(page):
    """Places count characters: one outside of UTF-16's first plane is one."""
    page.open()
    passage = "\U0001f426 The heron eats eels. It is grey.\n\nIt flies far."
    cases = [([[2, 22]], ""), (["It flies\nfar."], ""), (None, "It is grey. It flies far. [1]"),
             (None, "The grey heron is said to eat eels."), (None, "Nothing alike.")]  # fmt: skip
    page.evaluate(
        "window.found = null; import(new URL('web/show.js', location)).then(({ spansOf }) => {"
        f" const text = {json.dumps(passage)};"
        f" window.found = {json.dumps(cases)}.map(([quotes, said]) =>"
        " spansOf(text, quotes, said).map(([from, to]) => text.slice(from, to))); })"
    )
    assert page.wait("window.found") == [
        ["The heron eats eels."], ["It flies far."], ["It is grey.", "It flies far."],
        ["\U0001f426 The heron eats eels."], [],
    ]  # fmt: skip


def test_text_appears_while_it_is_made_is_told_at_the_end_and_can_be_stopped(rag, page):
    rag.deploy(GenerationModelId="test.held-back")
    rag.seen.clear()
    try:
        page.open()
        page.wait("document.activeElement.id === 'question'")
        page.type(QUESTION)
        page.press("Enter")
        page.wait(f"document.querySelector('.answer .text')?.textContent === {json.dumps(FIRST_HALF)}")
        assert page.evaluate("document.querySelector('#send').getAttribute('aria-label')") == "Stop the answer"
        assert page.text("#said") == "Answering" and not page.evaluate("document.querySelector('.answer [aria-live]')")
        page.emulate(prefers_reduced_motion="reduce")
        moving = "getComputedStyle(document.querySelector('.text > :last-child'), '::after').animationName"
        assert page.evaluate(moving) == "none"
        page.emulate(prefers_reduced_motion="no-preference")
        assert page.evaluate(moving) == "blink"
        session = page.evaluate("location.hash.slice(1)")
        page.press("Escape")
        page.wait_text(".notice", "Stopped.")
        assert page.text(".answer .text") == FIRST_HALF
        assert page.evaluate("document.querySelector('#send').getAttribute('aria-label')") == "Ask"
        assert QUESTION in page.text("#sessions .current")
        table = rag.server.resource("dynamodb").Table(rag.outputs["SessionsTableName"])

        def asked_to_stop():
            return any(
                one["session"] == session and one["item"].startswith("cancel#") for one in table.scan()["Items"]
            )

        wait_for(asked_to_stop, what="the service being told to stop")
        rag.seen.set()
        page.click(".notice button")
        page.wait(DONE % 1)
        assert page.texts(".question") == [QUESTION] and page.text(".cite") == "1"
        assert page.text("#said") == "Answer: " + page.text(".answer .text")
        assert page.evaluate("location.hash.slice(1)") == session
    finally:
        rag.seen.set()
        rag.deploy()


def test_a_lost_connection_says_so_and_the_question_is_asked_again_in_its_place(page):
    page.open()
    page.offline(True)
    page.send(QUESTION)
    page.wait_text(".notice.failed", "No complete answer: the service cannot be reached.")
    page.offline(False)
    page.click(".notice button")
    page.wait(DONE % 1)
    assert page.texts(".question") == [QUESTION] and page.text(".answer .text").startswith(QUOTE)


def test_a_failed_answer_says_why_and_leaves_one_turn(page, faults, rag):
    faults(service="s3vectors", operation="QueryVectors", error="deny")
    page.open("Which voles does the owl hunt?")
    page.wait_text(".notice.failed", "AccessDeniedException")
    rag.server.get("/_preheat/faults", "DELETE")
    page.click(".notice button")
    page.wait(DONE % 1)
    session = page.evaluate("location.hash.slice(1)")
    page.click("#new")
    page.click("#sessions .open")
    page.wait(DONE % 1)
    assert page.texts(".question") == ["Which voles does the owl hunt?"] and not page.texts(".notice")
    assert page.evaluate("location.hash.slice(1)") == session


def test_an_answer_found_by_words_alone_says_so(page, faults):
    faults(service="bedrock-runtime", operation="InvokeModel", error="deny")
    page.open("What do alder trees hold?")
    page.wait(DONE % 1)
    assert "Found by words alone" in page.texts(".notice")[0]
    assert "mode: lexical" in page.text(".timing")


# -- chats ------------------------------------------------------------------------------------------------------------


def test_chats_are_listed_resumed_and_deleted(page):
    page.open()
    page.ask(QUESTION)
    page.ask("And where do they nest?", 2)
    first = page.evaluate("location.hash.slice(1)")
    page.click("#new")
    assert page.texts(".turn") == [] and page.text("#title") == "New chat" and page.focused() == "question"
    page.ask("When do swifts sleep?")
    page.wait("document.querySelectorAll('#sessions li').length === 2")
    assert page.texts("#sessions .open span") == ["When do swifts sleep?", QUESTION]
    page.evaluate("document.querySelectorAll('#sessions .open')[1].click()")
    page.wait(DONE % 2)
    assert page.texts(".question") == [QUESTION, "And where do they nest?"]
    assert page.evaluate("location.hash.slice(1)") == first
    assert page.text("#sessions [aria-current=true] span") == QUESTION
    page.ask("What do they eat?", 3)
    page.browser.call("Page.reload")
    page.wait("performance.getEntriesByType('navigation')[0].type === 'reload' && " + DONE % 3)
    page.click(".cite")
    page.wait("document.querySelector('#reader-text .target mark') !== null")
    page.press("Escape")
    page.wait("document.querySelectorAll('#sessions li').length === 2")
    page.click("#sessions .current .quiet")
    assert QUESTION in page.text("#confirm-text")
    page.press("Escape")
    page.wait("!document.querySelector('#confirm').open")
    page.click("#sessions .current .quiet")
    page.click("#confirm [value=yes]")
    page.wait("document.querySelectorAll('#sessions li').length === 1")
    assert page.texts(".turn") == [] and page.texts("#sessions .open span") == ["When do swifts sleep?"]
    page.open(url=f"{page.url}#{first}")
    page.wait_text("#toast", "That chat cannot be opened")
    assert page.text("#title") == "New chat"


def test_an_answer_that_is_left_goes_on_in_its_chat(rag, page):
    rag.deploy(GenerationModelId="test.held-back")
    rag.seen.clear()
    try:
        page.open()
        page.begin(QUESTION, FIRST_HALF)
        page.click("#new")
        assert page.texts(".turn") == []
        assert page.evaluate("document.querySelector('#send').getAttribute('aria-label')") == "Ask"
        rag.seen.set()
        page.wait_text("#sessions .open", QUESTION)
        page.click("#sessions .open")
        page.wait(DONE % 1)
        assert page.text(".answer .text").startswith(FIRST_HALF) and page.text(".cite") == "1"
    finally:
        rag.seen.set()
        rag.deploy()


def test_what_the_guardrail_holds_back_is_told(rag, page):
    made = rag.server.client("bedrock").create_guardrail(
        name="no-owls", blockedInputMessaging="Owls are not spoken of.", blockedOutputsMessaging="Not this.",
        wordPolicyConfig={"wordsConfig": [{"text": "owl"}]},
    )  # fmt: skip
    rag.deploy(GuardrailId=made["guardrailId"], GuardrailVersion="DRAFT")
    try:
        page.open("What does the barn owl hunt?")
        page.wait(DONE % 1)
        assert page.texts(".notice") == ["Held back by the guardrail."]
        assert page.text(".answer .text") == "Owls are not spoken of." and not page.texts(".cite")
    finally:
        rag.deploy(GuardrailId="none")


def test_feedback_with_a_comment_is_kept(rag, page):
    page.open(QUESTION)
    page.wait(DONE % 1)
    page.click("[aria-label='Bad answer']")
    page.wait("document.querySelector('[aria-label=\"Bad answer\"]').getAttribute('aria-pressed') === 'true'")
    assert page.evaluate("document.activeElement.name") == "comment"
    page.type("too short")
    page.press("Enter")
    page.wait_text("#toast", "Your comment is kept")
    session = page.evaluate("location.hash.slice(1)")
    table = rag.server.resource("dynamodb").Table(rag.outputs["SessionsTableName"])
    (turn,) = [one for one in table.scan()["Items"] if one["session"] == session and one["item"].startswith("turn#")]
    assert (turn["feedback"], turn["comment"]) == ("down", "too short")
    page.click("#new")
    page.click("#sessions .open")
    page.wait(DONE % 1)
    pressed = "document.querySelector('[aria-label=\"%s answer\"]').getAttribute('aria-pressed')"
    assert (page.evaluate(pressed % "Bad"), page.evaluate(pressed % "Good")) == ("true", "false")


# -- documents --------------------------------------------------------------------------------------------------------


def test_dropped_files_go_to_the_storage_and_are_followed_until_they_can_be_asked(rag, page):
    """The page is opened by another name than the storage's, so that the browser asks the bucket for its rules."""
    page.open(url=page.url.replace("127.0.0.1", "localhost"))
    page.evaluate(
        "const files = new DataTransfer();"
        "const text = '# Gulls\\n\\nGulls steal chips from tourists.';"
        "files.items.add(new File([text], 'gulls.md', {type: 'text/markdown'}));"
        "files.items.add(new File(['nothing'], 'broken.pdf'));"
        "files.items.add(new File(['x'], 'tool.exe'));"
        "files.items.add(new File([], 'empty.txt'));"
        "for (const kind of ['dragenter', 'drop'])"
        " document.body.dispatchEvent(new DragEvent(kind, {dataTransfer: files, bubbles: true, cancelable: true}))"
    )
    page.wait("document.querySelectorAll('#uploads .done').length === 1")
    page.wait("document.querySelectorAll('#uploads .failed').length === 3")
    told = page.texts("#uploads li")
    (gulls,) = [one for one in told if one.startswith("gulls.md")]
    assert "Ready, 1 passage" in gulls
    assert any("broken.pdf" in one and "not a readable PDF" in one and "uploads/" not in one for one in told)
    assert any("tool.exe is not of a kind that can be read" in one for one in told)
    assert any("empty.txt" in one and "the file is empty" in one for one in told)
    page.wait("[...document.querySelectorAll('#document-list b')].some((one) => one.textContent === 'gulls.md')")
    listed = "[...document.querySelectorAll('#document-list button')]"
    page.evaluate(f"{listed}.find((one) => one.textContent.startsWith('gulls')).click()")
    page.wait_text("#reader-text", "Gulls steal chips")
    page.press("Escape")
    page.press("Escape")
    page.wait("document.querySelector('dialog[open]') === null")
    page.ask("What do gulls steal?")
    assert page.text(".answer .text").startswith("Gulls steal chips from tourists.")
    page.browser.errors = [one for one in page.browser.errors if "400" not in one]
    assert not page.browser.errors


def test_chosen_files_are_brought_in_again_as_a_new_version(page, tmp_path):
    page.open()
    for number, bird in enumerate(("crane", "coot")):
        file = tmp_path / "bird.txt"
        file.write_text(f"The {bird} is a bird of reeds and lakes.")
        root = page.browser.call("DOM.getDocument")["root"]["nodeId"]
        node = page.browser.call("DOM.querySelector", nodeId=root, selector="#chooser")["nodeId"]
        page.browser.call("DOM.setFileInputFiles", nodeId=node, files=[str(file)])
        page.wait(f"document.querySelectorAll('#uploads .done').length === {number + 1}")
    page.press("Escape")
    page.ask("Which is a bird of reeds?")
    assert page.text(".answer .text").startswith("The coot is a bird")


# -- keys and limits --------------------------------------------------------------------------------------------------


def test_an_unknown_key_is_asked_for_again_and_kept_in_the_browser(rag, page):
    page.open()
    page.evaluate("localStorage.setItem('rag.key', 'rag-wrong')")
    page.browser.call("Page.reload")
    page.wait("document.querySelector('#key').open")
    assert page.text("#key-text") == "The service says: the access key is not known."
    assert page.focused() == "key-field" and not page.nameless()
    key = key_of(rag, "user:dora")
    page.type(key)
    page.press("Enter")
    page.wait("!document.querySelector('#key').open")
    page.wait(f"localStorage.getItem('rag.key') === {json.dumps(key)}")
    page.wait_text("#sessions-note", "Your chats will be listed here.")
    page.ask(QUESTION)
    page.wait("document.querySelectorAll('#sessions li').length === 1")
    page.click("#open-key")
    page.click("#key-forget")
    page.wait("document.querySelectorAll('#sessions li').length === 0")
    assert page.evaluate("localStorage.getItem('rag.key')") is None and page.texts(".turn") == []


def test_a_limit_says_when_to_ask_again(rag, page):
    page.open()
    page.evaluate(f"localStorage.setItem('rag.key', {json.dumps(key_of(rag, 'user:emil', requests_a_minute=1))})")
    rag.server.advance(60)
    page.ask(QUESTION)
    page.send("And again?")
    page.wait_text(".notice.failed", "1 questions a minute are allowed")
    assert page.evaluate("document.querySelector('.notice button').disabled")
    assert page.evaluate("/^Ask again in [1-9]\\d? s$/.test(document.querySelector('.notice button').textContent)")


# -- how it looks and is used -----------------------------------------------------------------------------------------


def test_the_keyboard_does_it_all(page):
    page.open(QUESTION)
    page.wait(DONE % 1)
    page.evaluate("document.activeElement.blur()")
    page.press("/")
    assert page.focused() == "question" and page.evaluate("document.querySelector('#question').value") == ""
    page.key("ArrowUp")
    assert page.evaluate("document.querySelector('#question').value") == QUESTION
    page.evaluate("document.querySelector('#question').value = ''")
    page.key("1", ALT)
    page.wait("document.querySelector('#reader').open")
    page.press("Escape")
    page.wait("!document.querySelector('#reader').open")
    page.key("o", ALT)
    page.wait("document.querySelector('#documents').open")
    page.press("Escape")
    page.wait("!document.querySelector('#documents').open")
    page.evaluate("document.activeElement.blur()")
    page.key("?")
    page.wait("document.querySelector('#keys').open")
    page.press("Escape")
    page.wait("!document.querySelector('#keys').open")
    page.key("n", ALT)
    page.wait("document.querySelectorAll('.turn').length === 0")
    page.evaluate("document.querySelector('#new').focus()")
    order = []
    for _ in range(12):
        order.append(page.focused())
        page.key("Tab")
    wanted = ["new", "open-documents", "open-key", "theme", "open-keys", "question", "send"]
    assert [one for one in order if one in wanted][: len(wanted)] == wanted


def test_themes_follow_the_system_and_the_choice_is_kept(page):
    ground = "getComputedStyle(document.body).backgroundColor"
    page.emulate(prefers_color_scheme="light")
    page.open()
    light = page.evaluate(ground)
    page.emulate(prefers_color_scheme="dark")
    dark = page.wait(f"{ground} !== {json.dumps(light)} && {ground}")
    page.click("#theme")
    assert page.text("#theme-name") == "Theme: light" and page.evaluate(ground) == light
    page.click("#theme")
    page.emulate(prefers_color_scheme="light")
    page.browser.call("Page.reload")
    page.wait("performance.getEntriesByType('navigation')[0].type === 'reload'")
    page.wait(f"document.querySelector('#theme-name').textContent === 'Theme: dark' && {ground} === {json.dumps(dark)}")


def test_every_control_has_a_name(page):
    page.open(QUESTION)
    page.wait(DONE % 1)
    page.wait("document.querySelectorAll('#sessions li').length === 1")
    assert not page.nameless()
    page.click("#open-documents")
    page.wait("document.querySelectorAll('#document-list li').length >= 3")
    assert not page.nameless()
    page.press("Escape")
    page.click("#open-keys")
    assert not page.nameless()


def test_a_phone_scrolls_downwards_only(page):
    page.width(PHONE)
    page.open()
    page.wait("document.querySelector('#empty').hidden === false")
    assert page.fits() == PHONE
    page.ask("x" * 400)
    page.ask(QUESTION, 2)
    assert page.fits() == PHONE
    assert page.evaluate("getComputedStyle(document.querySelector('#side')).display") == "none"
    page.click("#menu")
    page.wait("document.querySelector('#side').matches(':popover-open')")
    assert not page.nameless()
    page.press("Escape")
    page.wait("!document.querySelector('#side').matches(':popover-open')")
    assert page.focused() in ("menu", "question")
    page.click("#menu")
    page.click("#open-documents")
    page.wait("document.querySelectorAll('#document-list li').length >= 3")
    assert page.fits() == PHONE and not page.evaluate("document.querySelector('#side').matches(':popover-open')")


# -- the trace --------------------------------------------------------------------------------------------------------


def test_the_timing_leads_to_the_trace_in_the_console(page):
    page.open(QUESTION)
    page.wait(DONE % 1)
    link = page.evaluate("document.querySelector('a.trace').href")
    assert "/_preheat/console#trace/" in link
    page.browser.open(link)
    page.wait("document.querySelectorAll('.steps li').length >= 2")
    steps = page.texts(".steps .time")
    assert all(one.endswith(" ms") for one in steps)
    names = page.evaluate("[...document.querySelectorAll('.steps li')].map((one) => one.innerText.split('\\n')[0])")
    assert names.index("retrieval") < names.index("generation")
    assert page.evaluate("[...document.querySelectorAll('td')].some((one) => one.textContent === 'heron.md#0')")
    assert "input tokens" in page.text(".facts")
    bars = page.evaluate("[...document.querySelectorAll('.track i')].map((one) => parseFloat(one.style.left))")
    assert bars == sorted(bars) and bars[0] == 0
    page.evaluate("location.hash = '#traces'")
    page.wait("document.querySelector('td a') !== null")
    page.click("td a")
    page.wait("document.querySelectorAll('.steps li').length >= 2")
    page.width(PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE
    assert not page.nameless() and not page.browser.errors
