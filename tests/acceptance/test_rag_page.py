"""The chat page in a real browser: examples, streaming text, citations, the keyboard, stopping, errors, a phone's
width."""

import json
from urllib.parse import quote

import pytest

from tests.acceptance.test_rag_questions import FIRST_HALF, QUESTION, QUOTE, chat, rag
from tests.support.chromium import FOUND, Browser

pytestmark = pytest.mark.skipif(FOUND is None, reason="there is no Chromium on this machine")

__all__ = ["chat", "rag"]
DONE = "document.querySelector('.answer[aria-busy=false]') !== null"


@pytest.fixture
def browser(tmp_path, request):
    found = Browser(tmp_path / "profile", getattr(request, "param", 1_280))
    yield found
    found.close()


def address(rag, question=""):
    url = rag.platform.at_path(rag.outputs["AskUrl"])
    return f"{url}?q={quote(question)}" if question else url


def text(selector):
    return f"document.querySelector({json.dumps(selector)})?.textContent"


def test_examples_are_offered_and_asked(rag, browser):
    rag.deploy(ExampleQuestions=f"{QUESTION}|When do swifts sleep?")
    try:
        browser.open(address(rag))
        offered = "[...document.querySelectorAll('#examples button')].map((one) => one.textContent)"
        assert browser.wait(f"{offered}.length && {offered}") == [QUESTION, "When do swifts sleep?"]
        browser.evaluate("document.querySelector('#examples button').click()")
        browser.wait(DONE)
        assert browser.evaluate(text(".question")) == QUESTION
        assert browser.evaluate(text(".answer p")).startswith(QUOTE)
        assert not browser.errors
    finally:
        rag.deploy()


@pytest.mark.parametrize("browser", [1_280, 390], indirect=True)
def test_a_citation_opens_its_passage_with_the_quote_marked(rag, browser):
    browser.open(address(rag, QUESTION))
    browser.wait(DONE)
    assert browser.evaluate(text(".sources span")) == "Herons > Food"
    browser.evaluate("document.querySelector('.cite').click()")
    assert browser.evaluate("document.querySelector('dialog').open")
    assert browser.evaluate(text("#passage-title")) == "Herons > Food"
    assert browser.evaluate(text("#passage-source")) == "[1] heron.md"
    assert browser.evaluate(text("#passage-text mark")) == QUOTE
    browser.press("Escape")
    browser.wait("!document.querySelector('dialog').open")
    word = "x" * 400
    browser.evaluate("document.querySelector('#question').focus()")
    browser.type(word)
    browser.press("Enter")
    browser.wait("document.querySelectorAll('.answer[aria-busy=false]').length === 2")
    assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert browser.evaluate("document.querySelector('main').scrollWidth <= innerWidth")
    assert not browser.errors


def test_text_appears_while_it_is_made_and_can_be_stopped(rag, browser):
    rag.deploy(GenerationModelId="test.held-back")
    rag.seen.clear()
    try:
        browser.open(address(rag))
        browser.wait("document.activeElement.id === 'question'")
        browser.type(QUESTION)
        browser.press("Enter")
        browser.wait(f"{text('.answer p')} === {json.dumps(FIRST_HALF)}")
        assert browser.evaluate(text("#send")) == "Stop"
        browser.press("Escape")
        browser.wait(DONE)
        assert browser.evaluate(text(".answer .note")) == "Stopped.Ask again"
        assert browser.evaluate(text("#send")) == "Ask"
        rag.seen.set()
        browser.evaluate("document.querySelector('.answer .note button').click()")
        browser.wait("document.querySelectorAll('.answer[aria-busy=false]').length === 2")
        assert browser.evaluate("document.querySelectorAll('.answer')[1].querySelectorAll('.cite').length") == 1
    finally:
        rag.seen.set()
        rag.deploy()


def test_a_failed_answer_says_why(rag, browser):
    rag.deploy(GenerationModelId="no.such-model")
    try:
        browser.open(address(rag, QUESTION))
        browser.wait(DONE)
        told = browser.evaluate(text(".note.failed"))
        assert told.startswith("No complete answer: the answer could not be completed (ValidationException)")
    finally:
        rag.deploy()
