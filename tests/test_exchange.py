"""Pairs in and out of files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from serving.exchange import Imported, read_pairs, starter_pairs, write_pairs
from serving.records import CopydeskError, PairSource, Task
from serving.store import NewPair, Store


def written(tmp_path: Path, name: str, content: str | bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def reasons(imported: Imported) -> list[str]:
    return [str(problem) for problem in imported.problems]


def test_a_csv_with_texts_over_several_lines_is_read(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", 'Instruction,input,output\n"Write, please","a\nb","He said ""yes""."\n')
    (pair,) = read_pairs(path).pairs
    assert pair.task == Task("Write, please", "a\nb", "en", "other")
    assert pair.output == 'He said "yes".'
    assert pair.source is PairSource.IMPORT


def test_rows_that_cannot_be_used_are_named_with_line_and_reason(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "a.csv",
        "instruction,input,output,language,category\n"
        "Write.,,Copy.,,\n"
        "Write.,,  ,,\n"
        ",,Copy.,,\n"
        "Write.,,Copy.,fr,\n"
        "Write.,,Copy.,en,cars\n"
        "Write.,,Copy, and more,en,home,extra\n"
        f"Write.,,{'x' * 10_001},en,\n"
        "Write.,,Last.,en,home\n",
    )
    imported = read_pairs(path)
    assert [pair.output for pair in imported.pairs] == ["Copy.", "Last."]
    assert reasons(imported) == [
        "line 3: the output is empty",
        "line 4: the instruction is empty",
        "line 5: the language 'fr' is not one of en, zh",
        "line 6: the category 'cars' is not one of beauty, food, home, electronics, fashion, services, office, other",
        "line 7: 7 cells under 5 columns; quote texts with commas",
        "line 8: the output has 10,001 characters; 10,000 are the most",
    ]


def test_a_csv_without_its_columns_says_which(tmp_path: Path) -> None:
    with pytest.raises(CopydeskError, match="no column instruction and no column output"):
        read_pairs(written(tmp_path, "a.csv", "prompt,completion\na,b\n"))


def test_a_csv_with_chinese_column_names_is_read(tmp_path: Path) -> None:
    (pair,) = read_pairs(written(tmp_path, "a.csv", "需求,文案\n写一句话介绍台灯。,暖光照着书页。\n")).pairs
    assert (pair.task.instruction, pair.output, pair.task.language) == ("写一句话介绍台灯。", "暖光照着书页。", "zh")


def test_an_empty_csv_says_what_its_first_line_is(tmp_path: Path) -> None:
    with pytest.raises(CopydeskError, match="empty; its first line names"):
        read_pairs(written(tmp_path, "a.csv", ""))


def test_a_csv_that_breaks_off_in_a_quote_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(CopydeskError, match="breaks off in the row that begins on line"):
        read_pairs(written(tmp_path, "a.csv", 'instruction,output\nWrite.,"never closed\n'))


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_csv_of_any_country_is_read(tmp_path: Path, delimiter: str) -> None:
    text = delimiter.join(["instruction", "output"]) + "\r\n" + delimiter.join(["Write.", "Copy."]) + "\r\n"
    assert [pair.output for pair in read_pairs(written(tmp_path, "a.csv", text)).pairs] == ["Copy."]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gb18030"])
def test_usual_encodings_are_read(tmp_path: Path, encoding: str) -> None:
    text = "instruction,input,output\n写一段文案,受众：上班族,露米晨露喷雾陪你上班。\n"
    (pair,) = read_pairs(written(tmp_path, "a.csv", text.encode(encoding))).pairs
    assert (pair.output, pair.task.language) == ("露米晨露喷雾陪你上班。", "zh")


ENGLISH = "instruction,output\n" + "Write.,A plain cup.\n" * 50
CHINESE = "需求,文案\n写一段文案,露米晨露喷雾陪你上班。\n"


@pytest.mark.parametrize(
    "text",
    [
        "instruction,output\nWrite.,It’s warm\n",
        "instruction,output\nWrite.,Crème brûlée for two\n",
        "instruction,output\nWrite.,The lamp—warm—folds flat\n",
        "instruction,output\nSchreibe.,Größe für schöne Türen\n",
        "instruction,output\nWrite.,¡Hola at 50°C\n",
        ENGLISH + "Write.,It’s crème in a cup.\n" + "Write.,A plain cup.\n" * 50,
    ],
)
def test_a_file_in_windows_1252_is_not_taken_for_chinese(tmp_path: Path, text: str) -> None:
    data = text.encode("cp1252")
    data.decode("gb18030")  # the bytes alone say nothing
    with pytest.raises(CopydeskError, match="save it as UTF-8"):
        read_pairs(written(tmp_path, "a.csv", data))


@pytest.mark.parametrize(
    "output",
    [
        "iPhone手机壳，轻薄防摔。",
        "Luma露米face mist一喷就清爽",
        "Crème 霜，A股的颜色",
        "这款檯燈的暖光照亮書頁，輕觸即可調節亮度。",
        "好",
        "It’s warm—and it folds.",
    ],
)
def test_a_file_in_gb18030_may_mix_chinese_and_latin_letters(tmp_path: Path, output: str) -> None:
    for before in ("instruction,output\n", ENGLISH, CHINESE):
        data = f"{before}Write.,{output}\n".encode("gb18030")
        assert read_pairs(written(tmp_path, "a.csv", data)).pairs[-1].output == output


def test_short_chinese_under_the_long_keys_of_jsonl_is_read_in_gb18030(tmp_path: Path) -> None:
    row = {"instruction": "写。", "output": "台灯。", "requirements": {"product": "台灯", "call_to_action": True}}
    data = json.dumps(row, ensure_ascii=False).encode("gb18030")
    assert [pair.output for pair in read_pairs(written(tmp_path, "a.jsonl", data)).pairs] == ["台灯。"]


SIMPLIFIED = (
    "露米晨露喷雾陪你上班。",
    "这款台灯的暖光照亮书页，轻触即可调节亮度。",
    "好",
    "中文",
    "鑫淼喷雾，瓷杯",
    "iPhone手机壳，轻薄防摔。",
)
TRADITIONAL = (
    "這款檯燈的暖光照亮書頁，輕觸即可調節亮度。",
    "保溫十二小時，鎖住咖啡的香氣。",
    "Luma 露米噴霧一噴就清爽",
)


@pytest.mark.parametrize("output", TRADITIONAL)
@pytest.mark.parametrize("encoding", ["cp950", "gb18030"])
def test_traditional_chinese_is_read_in_big5_and_in_gb18030(tmp_path: Path, encoding: str, output: str) -> None:
    for header in ("instruction,output\nWrite.", "需求,文案\n寫一句介紹檯燈的文案。"):
        data = f"{header},{output}\n".encode(encoding)
        assert [pair.output for pair in read_pairs(written(tmp_path, "a.csv", data)).pairs] == [output]


@pytest.mark.parametrize("output", SIMPLIFIED)
def test_simplified_chinese_is_never_taken_for_big5(tmp_path: Path, output: str) -> None:
    data = f"instruction,output\nWrite.,{output}\n".encode("gb18030")
    assert [pair.output for pair in read_pairs(written(tmp_path, "a.csv", data)).pairs] == [output]


def test_the_starter_pairs_stay_what_they_are_in_gb18030(tmp_path: Path, store: Store) -> None:
    store.add_pairs(starter_pairs("zh"))
    for pair in store.pairs():
        data = json.dumps({"instruction": pair.task.instruction, "output": pair.output}, ensure_ascii=False)
        (read,) = read_pairs(written(tmp_path, "a.jsonl", data.encode("gb18030"))).pairs
        assert read.output == pair.output


@pytest.mark.parametrize("text", ["Write.,Warm at 50°C\n", "Schreibe.,Äpfel und Öl\n", "Écris.,«Âge d'or»\n"])
def test_a_letter_of_windows_1252_before_another_is_not_taken_for_big5(tmp_path: Path, text: str) -> None:
    with pytest.raises(CopydeskError, match="save it as UTF-8"):
        read_pairs(written(tmp_path, "a.csv", f"instruction,output\n{text}".encode("cp1252")))


def test_half_a_character_costs_its_row_alone(tmp_path: Path, store: Store) -> None:
    lines = [
        r'{"instruction": "Write.", "output": "Warm \ud83d"}',
        r'{"output": "x", "requirements": {"product": "Lamp \ude00"}}',
        r'{"instruction": "Write.", "output": "Warm \ud83d\ude00"}',
    ]
    imported = read_pairs(written(tmp_path, "a.jsonl", "\n".join(lines)))
    assert reasons(imported) == [
        "line 1: output holds half a character; correct the escape \\u….",
        "line 2: requirements holds half a character; correct the escape \\u….",
    ]
    assert store.add_pairs(imported.pairs).added == 1


@pytest.mark.parametrize(
    ("header", "both"), [("任务,需求,文案", "任务 and 需求"), ("Instruction,需求,output", "instruction and 需求")]
)
def test_two_columns_of_one_meaning_are_named(tmp_path: Path, header: str, both: str) -> None:
    with pytest.raises(CopydeskError, match=f"The columns {both} both mean instruction; keep one"):
        read_pairs(written(tmp_path, "a.csv", f"{header}\nA,B,C\n"))


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("before", [ENGLISH, CHINESE])
def test_the_first_line_that_is_not_utf_8_is_named(tmp_path: Path, before: str, mark: bytes) -> None:
    data = mark + before.encode() + "写,A caf\n".encode() + b"\xe9,caf\xe9\n" + b"\xe8,x\n"
    line = before.count("\n") + 2
    with pytest.raises(CopydeskError, match=rf"\(line {line} is the first that is not UTF-8\); save it as UTF-8"):
        read_pairs(written(tmp_path, "a.csv", data))


def test_chinese_utf_8_with_one_damaged_row_is_not_taken_for_gb18030(tmp_path: Path) -> None:
    data = "instruction,output\n写作,暖光照着书页\n".encode() * 3 + b"Write.,cr\xe8me\n"
    data.decode("gb18030")
    with pytest.raises(CopydeskError, match="line 7 is the first"):
        read_pairs(written(tmp_path, "a.csv", data))


@pytest.mark.parametrize("data", [b"\x89PNG\r\n\x1a\n\x00\x00", b"instruction,output\n\xff\xff\xff,x\n"])
def test_what_is_no_text_is_one_clear_error(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(CopydeskError, match="save it as UTF-8"):
        read_pairs(written(tmp_path, "a.csv", data))


def test_a_damaged_line_of_jsonl_does_not_cost_the_others(tmp_path: Path) -> None:
    lines = [
        '{"instruction": "Write.", "output": "One."}',
        "{broken",
        "",
        "[1, 2]",
        '{"instruction": 3, "output": "x"}',
        '{"instruction": "Write.", "output": "Two\u2028lines."}',
        '{"output": "x", "requirements": {"colour": "red"}}',
        '{"output": "x", "requirements": {"product": "Lamp", "must_not": "best"}}',
        '{"output": "x", "requirements": {"product": "Lamp", "selling_points": [[]]}}',
    ]
    imported = read_pairs(written(tmp_path, "a.jsonl", "\n".join(lines)))
    assert [pair.output for pair in imported.pairs] == ["One.", "Two\u2028lines."]
    assert reasons(imported) == [
        "line 2: not JSON (Expecting property name enclosed in double quotes at column 2)",
        "line 4: the row is not an object",
        "line 5: instruction is not a text",
        "line 7: Requirements have unknown keys: colour",
        "line 8: must_not must be a list of texts, not 'best'",
        "line 9: selling_points must not hold an empty list",
    ]


def test_requirements_are_rendered_unless_the_row_brings_its_own_words(tmp_path: Path) -> None:
    requirements = {"product": "Alder lamp", "selling_points": [["warm light"]], "length": [20, 30]}
    rows = [
        {"requirements": requirements, "output": "Alder lamp."},
        {"instruction": "Reply.", "input": "Notes", "requirements": requirements, "output": "Alder lamp."},
    ]
    rendered, own = read_pairs(written(tmp_path, "a.jsonl", "\n".join(map(json.dumps, rows)))).pairs
    assert rendered.task.instruction == "Write product copy for Alder lamp."
    assert rendered.task.input == "Selling points: warm light\nLength: 20-30 words\nFormat: paragraph"
    assert (own.task.instruction, own.task.input) == ("Reply.", "Notes")
    assert own.task.requirements == rendered.task.requirements


def test_alpaca_must_be_a_list(tmp_path: Path) -> None:
    assert len(read_pairs(written(tmp_path, "a.json", '[{"instruction": "Write.", "output": "x"}]')).pairs) == 1
    with pytest.raises(CopydeskError, match="must be a list"):
        read_pairs(written(tmp_path, "b.json", "{}"))
    with pytest.raises(CopydeskError, match="no JSON"):
        read_pairs(written(tmp_path, "c.json", "{}\n{}"))


def test_an_unknown_ending_asks_for_the_format(tmp_path: Path) -> None:
    path = written(tmp_path, "a.txt", '{"instruction": "Write.", "output": "x"}')
    with pytest.raises(CopydeskError, match="add --format with one of csv, jsonl, alpaca"):
        read_pairs(path)
    assert len(read_pairs(path, "jsonl").pairs) == 1
    with pytest.raises(CopydeskError, match="cannot be read"):
        read_pairs(tmp_path / "gone.csv")


texts = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=40)
cells = st.one_of(
    texts, st.sampled_from(["=1+1", "'=1", "''-a", "- a\n- b", "@me", "+1", 'a "b"', "a,b;c", "'quoted'"])
)


@pytest.mark.parametrize("format", ["csv", "jsonl", "alpaca"])
@examples(deadline=None, max_examples=50)  # each opens a database
@given(instruction=cells, input=cells, output=cells)
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, format: str, instruction: str, input: str, output: str
) -> None:
    if not instruction.strip() or not output.strip():
        return
    tmp_path = tmp_path_factory.mktemp("exchange")
    store = Store(tmp_path / "desk.db")
    store.add_pairs([NewPair(Task(instruction.strip(), input.strip()), output.strip(), PairSource.IMPORT)])
    path = tmp_path / "pairs"
    write_pairs(path, store.pairs(), format)
    imported = read_pairs(path, format)
    assert reasons(imported) == []
    (pair,) = imported.pairs
    assert (pair.task.instruction, pair.task.input, pair.output) == (
        instruction.strip(),
        input.strip(),
        output.strip(),
    )


def test_jsonl_keeps_the_requirements(tmp_path: Path, store: Store) -> None:
    store.add_pairs(starter_pairs("en"))
    path = tmp_path / "pairs.jsonl"
    write_pairs(path, store.pairs())
    assert [pair.task for pair in read_pairs(path).pairs] == [pair.task for pair in store.pairs()]


def test_no_cell_runs_as_a_formula_in_a_spreadsheet(tmp_path: Path, store: Store) -> None:
    store.add_pairs([NewPair(Task("=HYPERLINK(1)"), "- a\n- b", PairSource.IMPORT)])
    path = tmp_path / "pairs.csv"
    write_pairs(path, store.pairs())
    assert "'=HYPERLINK(1),,\"'- a\n- b\",en,other" in path.read_text(encoding="utf-8-sig")


def test_a_failed_export_leaves_the_old_file_and_no_other(tmp_path: Path, store: Store) -> None:
    folder = tmp_path / "pairs.csv"
    folder.mkdir()
    with pytest.raises(CopydeskError, match="cannot be written"):
        write_pairs(folder, store.pairs())
    assert not list(tmp_path.glob(".pairs*"))


@pytest.mark.parametrize("language", ["en", "zh"])
def test_starter_pairs_arrive_once_and_whole(store: Store, language: str) -> None:
    pairs = starter_pairs(language)
    assert len(pairs) >= 100
    assert {pair.task.language for pair in pairs} == {language}
    assert {pair.source for pair in pairs} == {PairSource.STARTER}
    assert store.add_pairs(pairs).added == len(pairs)
    assert store.add_pairs(pairs).duplicates == len(pairs)


def test_there_are_no_starter_pairs_in_an_unknown_language() -> None:
    with pytest.raises(CopydeskError, match="there are en, zh"):
        starter_pairs("../en")
