"""Conversations in the forms of public sets; the words are our own."""

from __future__ import annotations

from tests.support.file_forms.form import Form, prompt

READ = "tk.read_prompts(path)"
USER = {"role": "user", "content": "Is it warm in Rome?"}
SAID = {"role": "assistant", "content": "Yes, it is."}
ASKED = [("user", USER["content"])]
CALL = {"name": "weather", "arguments": '{"city": "Rome"}'}
CALLING = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "c", "type": "function", "function": CALL}],
}
TOOL = {"role": "tool", "tool_call_id": "c", "content": "22 degrees"}
KEPT_CALL = (
    '[{"id": "c", "type": "function", '
    '"function": {"name": "weather", "arguments": {"city": "Rome"}}}]'
)

FORMS = [
    Form(
        "ShareGPT",
        "sharegpt.json",
        [
            {
                "id": "x_0",
                "conversations": [
                    {"from": "human", "value": "Hi"},
                    {"from": "gpt", "value": "Hello!"},
                ],
            }
        ],
        READ,
        "roles in words of templates; the last answer is the response",
        [prompt("Hi", "Hello!")],
        says="messages='conversations', id='id'",
    ),
    Form(
        "OpenAI fine-tuning",
        "chat.jsonl",
        [{"messages": [{"role": "system", "content": "Be kind."}, USER, SAID]}],
        READ,
        "the last turn is the response",
        [prompt([("system", "Be kind."), *ASKED], SAID["content"])],
        says="ids numbered",
    ),
    Form(
        "OpenAI batch requests",
        "batch.jsonl",
        [
            {
                "custom_id": "r-1",
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {"model": "m", "messages": [USER], "max_tokens": 9},
            }
        ],
        READ,
        "the body's messages under their custom id; the rest are labels",
        [prompt(ASKED, my_method="POST", url="/v1/chat/completions", model="m", max_tokens=9)],
        says="id='custom_id'",
    ),
    Form(
        "OpenAI batch requests, responses",
        "responses.jsonl",
        [
            {
                "custom_id": "r-1",
                "url": "/v1/responses",
                "body": {"instructions": "Be kind.", "input": USER["content"]},
            }
        ],
        READ,
        "`instructions` are the system message",
        [prompt([("system", "Be kind."), *ASKED], url="/v1/responses")],
        says="text='input', id='custom_id', system='instructions'",
    ),
    Form(
        "OpenAI tools",
        "tools.jsonl",
        [
            {
                "messages": [USER, CALLING, TOOL, SAID],
                "tools": [{"type": "function", "function": {"name": "weather"}}],
            }
        ],
        READ,
        "calls and results are turns of their own, `tools` go to the template",
        [
            prompt(
                [*ASKED, ("assistant", ""), ("tool_calls", KEPT_CALL), ("tool", "22 degrees")],
                SAID["content"],
            )
        ],
        says="ids numbered",
    ),
    Form(
        "Anthropic messages",
        "claude.jsonl",
        [
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "text", "text": "Is it "},
                            {"type": "text", "text": "warm?"},
                        ],
                    },
                    {
                        "role": "assistant",
                        "content": [
                            {"type": "thinking", "thinking": "I look."},
                            {"type": "text", "text": "Yes."},
                        ],
                    },
                ]
            }
        ],
        READ,
        "text parts joined; thoughts are the response's, with the role `thinking`",
        [prompt("Is it warm?", "Yes.")],
        says="ids numbered",
    ),
    Form(
        "answers with reasoning_content",
        "reasoning.jsonl",
        [{"messages": [USER, {**SAID, "reasoning_content": "I look."}]}],
        READ,
        "the thought before the answer, by the model's template",
        [prompt(ASKED, SAID["content"])],
        says="ids numbered",
    ),
    Form(
        "messages with images",
        "vision.jsonl",
        [
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "image_url", "image_url": {"url": "a.png"}}],
                    }
                ]
            }
        ],
        READ,
        "take the image out, or describe it in words",
        refused="part of the type 'image_url'.*images and sounds are not",
    ),
    Form(
        "WildChat",
        "wildchat.parquet",
        [
            {
                "conversation_hash": "ab1",
                "model": "m",
                "turn": 1,
                "language": "English",
                "conversation": [
                    {"role": "user", "content": "Hi", "country": "Peru", "toxic": False},
                    {"role": "assistant", "content": "Hello", "country": None, "toxic": False},
                ],
            }
        ],
        READ,
        "conversations under their hash; what messages say beside is named as not read",
        [prompt("Hi", "Hello", model="m", turn=1, language="English")],
        says="not read: the messages' country",
    ),
    Form(
        "LMSYS-Chat-1M",
        "lmsys.parquet",
        [
            {
                "conversation_id": "c1",
                "model": "m",
                "conversation": [
                    {"content": "Hi", "role": "user"},
                    {"content": "Hello", "role": "assistant"},
                ],
                "redacted": False,
            }
        ],
        READ,
        "conversations under their id",
        [prompt("Hi", "Hello", model="m", redacted=False)],
        says="id='conversation_id'",
    ),
    Form(
        "UltraChat",
        "ultrachat.jsonl",
        [
            {
                "prompt": "Hi",
                "prompt_id": "p1",
                "messages": [
                    {"role": "user", "content": "Hi"},
                    {"role": "assistant", "content": "Hello"},
                ],
            }
        ],
        READ,
        "the messages; `prompt`, which repeats them, is the label `my_prompt`",
        [prompt("Hi", "Hello", my_prompt="Hi")],
        says="id='prompt_id'",
    ),
    Form(
        "OpenAI evals",
        "samples.jsonl",
        [{"input": [{"role": "system", "content": "Be brief."}, USER], "ideal": "Yes"}],
        READ,
        "`input` as messages, `ideal` a label",
        [prompt([("system", "Be brief."), *ASKED], ideal="Yes")],
        says="messages='input'",
    ),
    Form(
        "TRL, prompts and completions",
        "sft.jsonl",
        [{"prompt": [USER], "completion": [SAID]}],
        READ,
        "the completion's messages go on with the prompt's",
        [prompt(ASKED, SAID["content"])],
        says="messages='prompt', ids numbered, response='completion'",
    ),
    Form(
        "LLaMA-Factory tools",
        "toolace.json",
        [
            {
                "conversations": [
                    {"from": "human", "value": USER["content"]},
                    {"from": "gpt", "value": SAID["content"]},
                ],
                "system": "Be kind.",
                "tools": '[{"name": "weather"}]',
            }
        ],
        READ,
        "`tools` may be JSON text",
        [prompt([("system", "Be kind."), *ASKED], SAID["content"])],
        says="system='system'",
    ),
    Form(
        "OpenAssistant",
        "oasst.jsonl",
        [
            {"message_id": "a", "parent_id": None, "role": "prompter", "text": "Hi"},
            {"message_id": "b", "parent_id": "a", "role": "assistant", "text": "Hello"},
        ],
        READ,
        "a message a row: write each way through the tree as messages",
        refused="message of a tree .role 'assistant', parent_id 'a'.*as messages",
    ),
    Form(
        "MT-Bench",
        "question.jsonl",
        [{"question_id": 81, "category": "writing", "turns": ["Write.", "Write it anew."]}],
        READ,
        "two turns of the user need the answer between them",
        refused="several turns are messages",
    ),
]
