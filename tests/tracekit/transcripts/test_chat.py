"""Chat rendering: pieces, roles, one BOS, pinned dates, on templates that each misbehave."""

import copy
import datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from tracekit.model.embedded import embedded_model
from tracekit.transcripts import chat_template

LLAMA3 = (
    "{{- bos_token }}"
    "{%- if not date_string is defined %}"
    "{%- set date_string = strftime_now('%d %b %Y') %}{%- endif %}"
    "{%- if messages[0]['role'] == 'system' %}"
    "{%- set system_message = messages[0]['content']|trim %}"
    "{%- set messages = messages[1:] %}{%- else %}{%- set system_message = '' %}{%- endif %}"
    "{{- '<|start_header_id|>system<|end_header_id|>\n\n' }}"
    "{{- 'Cutting Knowledge Date: December 2023\nToday Date: ' + date_string + '\n\n' }}"
    "{{- system_message }}{{- '<|eot_id|>' }}"
    "{%- for message in messages %}"
    "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
    "{{- message['content'] | trim + '<|eot_id|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}"
    "{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    "{% if message['role'] == 'assistant' %}{% set role = 'model' %}"
    "{% else %}{% set role = message['role'] %}{% endif %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
# trims only what the user says, as Mistral's does, and prints no BOS
MIXED = (
    "{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'].strip() }} [/INST]"
    "{% else %}{{ m['content'] }}{% endif %}{% endfor %}"
)
THINKING = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'].split('</think>')[-1] }}{% endfor %}"
)
TODAY = "{{ strftime_now('%Y-%m-%d') }} {% for m in messages %}{{ m['content'] }}{% endfor %}"
DOUBLE = "{{ bos_token }}{{ bos_token }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
TALK = [("user", " Where is Paris?\n"), ("assistant", "In France. "), ("user", "And Rome?")]


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(embedded_model())


@pytest.fixture(scope="module")
def adding(tokenizer):
    """A tokenizer that puts a BOS before every text, as Llama's and Gemma's do."""
    made = copy.deepcopy(tokenizer)
    made.add_special_tokens({"bos_token": "<|endoftext|>"})
    bos = made.convert_tokens_to_ids("<|endoftext|>")
    made.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", bos)]
    )
    return made


def with_template(tokenizer, template):
    made = copy.deepcopy(tokenizer)
    made.chat_template = template
    return made


def said(pieces, role):
    return "".join(text for text, r in pieces if r == role)


@pytest.mark.parametrize(
    "template", [LLAMA3, GEMMA, MIXED, None], ids=["llama", "gemma", "mixed", "own"]
)
def test_pieces_join_to_what_the_template_renders(tokenizer, template):
    made = with_template(tokenizer, template or tokenizer.chat_template)
    pieces = chat_template.render(made, TALK)
    whole = made.apply_chat_template(
        [{"role": r, "content": c} for r, c in TALK],
        tokenize=False,
        add_generation_prompt=True,
        date_string="26 Jul 2024",
    )
    assert "".join(text for text, _ in pieces) == whole
    users = [text.strip() for text, role in pieces if role == "user"]
    assert users == ["Where is Paris?", "And Rome?"]
    assert said(pieces, "assistant").strip() == "In France."


def test_only_the_user_is_trimmed_where_the_template_trims_only_the_user(tokenizer):
    pieces = chat_template.render(with_template(tokenizer, MIXED), TALK)
    assert ("Where is Paris?", "user") in pieces
    assert ("In France. ", "assistant") in pieces


def test_default_system_prompt_is_template_and_an_own_one_is_system(tokenizer):
    default = chat_template.render(tokenizer, [("user", "Hi")])
    assert "SmolLM" in said(default, "template")
    assert said(default, "system") == ""
    own = chat_template.render(tokenizer, [("system", "Be brief."), ("user", "Hi")])
    assert "SmolLM" not in said(own, "template")
    assert said(own, "system") == "Be brief."


def test_an_empty_system_message_keeps_the_default_one_out(tokenizer):
    assert "SmolLM" not in said(
        chat_template.render(tokenizer, [("system", ""), ("user", "Hi")]), "template"
    )


def test_content_that_looks_like_markup_is_still_the_users(tokenizer):
    pieces = chat_template.render(tokenizer, [("user", "user")])
    assert said(pieces, "user") == "user"
    assert pieces[-2] == ("user", "user")


def test_a_refused_role_is_an_error_with_the_templates_reason(tokenizer):
    with pytest.raises(ValueError, match=r"refuses the roles system, user: System role not supp"):
        chat_template.render(with_template(tokenizer, GEMMA), [("system", "x"), ("user", "Hi")])


def test_a_rewritten_content_is_refused(tokenizer):
    made = with_template(tokenizer, THINKING)
    talk = [("user", "Hi"), ("assistant", "<think>hm</think>Hello"), ("user", "Bye")]
    with pytest.raises(ValueError, match="rewrites the assistant message '<think>hm"):
        chat_template.render(made, talk)
    pieces = chat_template.render(made, [("user", "Hi"), ("assistant", "Hello")])
    assert pieces[-1] == ("Hello", "assistant")


def test_no_template_is_refused(tokenizer):
    with pytest.raises(ValueError, match="has no chat template"):
        chat_template.render(with_template(tokenizer, None), TALK)


@pytest.mark.parametrize("template", [LLAMA3, TODAY], ids=["argument", "clock"])
def test_dates_are_pinned(tokenizer, template):
    text = "".join(t for t, _ in chat_template.render(with_template(tokenizer, template), TALK))
    today = datetime.date.today()
    assert ("26 Jul 2024" in text) or ("2024-07-26" in text)
    assert today.strftime("%d %b %Y") not in text
    assert today.isoformat() not in text


@pytest.mark.parametrize("template", [LLAMA3, GEMMA, MIXED, DOUBLE])
def test_exactly_one_bos_whatever_the_template_does(adding, template):
    made = with_template(adding, template)
    ids, roles = chat_template.token_pieces(made, chat_template.render(made, TALK))
    assert ids.count(made.bos_token_id) == 1
    assert ids[0] == made.bos_token_id
    assert roles[0] == "template"
    assert len(ids) == len(roles)


def test_raw_text_gets_its_one_bos(adding, tokenizer):
    plain, _ = chat_template.token_pieces(tokenizer, [("Paris", "text")])
    ids, roles = chat_template.token_pieces(adding, [("Paris", "text")])
    assert ids == [adding.bos_token_id, *plain]
    assert roles == ["template", *["text"] * len(plain)]
    again, _ = chat_template.token_pieces(adding, [("<|endoftext|>Paris", "text")])
    assert again == ids


def test_roles_partition_the_ids(tokenizer):
    ids, roles = chat_template.token_pieces(tokenizer, chat_template.render(tokenizer, TALK))
    by_role = {r: [i for i, role in zip(ids, roles, strict=True) if role == r] for r in set(roles)}
    assert set(by_role) == {"template", "user", "assistant"}
    assert tokenizer.decode(by_role["assistant"]).strip() == "In France."
    assert all(tokenizer.decode([i]) != "<|im_start|>" for i in by_role["user"])


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.text(min_size=1, max_size=20).filter(str.strip), min_size=1, max_size=4))
def test_any_contents_come_back_as_they_were(tokenizer, contents):
    turns = [("user" if n % 2 == 0 else "assistant", text) for n, text in enumerate(contents)]
    pieces = chat_template.render(tokenizer, turns)
    assert [(role, text) for text, role in pieces if role != "template"] == turns


def test_a_date_in_a_computed_format_is_refused(tokenizer):
    made = with_template(tokenizer, "{% set f = '%Y' %}{{ strftime_now(f) }}{{ messages }}")
    with pytest.raises(ValueError, match="today's date in a format it computes"):
        chat_template.render(made, [("user", "Hi")])


def test_the_template_hash_knows_the_template_and_the_date(tokenizer, monkeypatch):
    before = chat_template.template_hash(tokenizer, "chat")
    assert chat_template.template_hash(with_template(tokenizer, MIXED), "chat") != before
    monkeypatch.setattr(chat_template, "PINNED_DATE", datetime.date(2025, 1, 1))
    assert chat_template.template_hash(tokenizer, "chat") != before
    assert chat_template.template_hash(tokenizer, "raw") == "raw"
