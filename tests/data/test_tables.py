"""Tables as programs export them: all forms give the same rows, and errors name the line."""

import datetime
import gzip
import json
import re
import zipfile

import pytest
from openpyxl import Workbook
from PIL import Image

from dqecir.data import tables
from dqecir.data.catalogue import check_catalogue, read_catalogue
from dqecir.data.tables import Table, read_table
from dqecir.errors import DataError

ROWS = [("image", "color", "price"), ("p1.jpg", "grün", "39,90 €"), ("p2.jpg", "rot; blau", "1.299 €")]


def read(path, data, **options) -> Table:
    path.write_bytes(data)
    return read_table(path, **options)


def joined(sign: str, end: str = "\n") -> str:
    quoted = [[f'"{cell}"' if sign in cell or sign == "," else cell for cell in row] for row in ROWS]
    return "".join(sign.join(row) + end for row in quoted)


@pytest.mark.parametrize("sign", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_the_file_tells_its_signs_and_its_encoding(tmp_path, sign, encoding, end):
    table = read(tmp_path / "t.csv", joined(sign, end).encode(encoding))
    assert [table.header, *(row.cells for row in table.rows)] == ROWS
    assert table.problems == table.notes == ()


@pytest.mark.parametrize("first", ["sep=;\n", "SEP=;\r\n", '"sep=;"\n'])
def test_a_line_may_name_the_separator(tmp_path, first):
    table = read(tmp_path / "t.csv", f"{first}image;note\np1.jpg;a,b\n".encode())
    assert table.header == ("image", "note")
    assert [(row.line, row.cells) for row in table.rows] == [(3, ("p1.jpg", "a,b"))]


def test_windows_1252_is_read_and_said(tmp_path):
    table = read(tmp_path / "t.csv", "image,price\np1.jpg,5 €\n".encode("cp1252"))
    assert table.rows[0].cells == ("p1.jpg", "5 €")
    assert "read as Windows-1252" in table.notes[0]


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_lines_of_two_encodings_are_refused_with_the_line(tmp_path, end):
    lines = [b"image,color", "p1.jpg,grün".encode(), "p2.jpg,grün".encode("cp1252"), b"p3.jpg,red"]
    with pytest.raises(DataError, match=r"line 3: this line is not UTF-8, but other lines are"):
        read(tmp_path / "t.csv", end.join(lines))


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        (
            "attributes.csv",
            b"<!DOCTYPE html>\n<html><table></table></html>",
            "a web page or XML, not a table",
        ),
        ("attributes.xls", b"\n <html xmlns:x='urn'><table><tr><td>image", "a web page or XML, not a table"),
        ("attributes.xml", b"<?xml version='1.0'?><rss></rss>", "a web page or XML, not a table"),
        ("attributes.json", b'[{"image": "p1.jpg", "color": "red"}]', "a JSON array, not a table"),
        ("attributes.csv", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3", "a PDF, not a table"),
        ("attributes.xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "an old Excel workbook"),
    ],
)
def test_files_that_are_no_tables_are_named_as_what_they_are(tmp_path, name, data, said):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=said):
        read_catalogue(tmp_path)


def test_a_table_of_another_ending_is_read_by_its_content(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "p1.jpg")
    (tmp_path / "attributes.txt").write_text("image\tcolor\np1.jpg\tred\n")
    assert read_catalogue(tmp_path).attributes == {"color": ("red",)}
    (tmp_path / "attributes.tsv").write_text("image\tcolor\np1.jpg\tblue\n")
    assert read_catalogue(tmp_path).attributes == {"color": ("blue",)}


def test_an_address_outside_the_folder_is_never_opened(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "p1.jpg")
    shop = tmp_path / "shop"
    shop.mkdir()
    (shop / "attributes.csv").write_text(f"image,color\n{tmp_path / 'p1.jpg'},red\n../p1.jpg,blue\n")
    opened = []
    report = check_catalogue(shop, decode=opened.append)
    assert len(report.problems) == 2
    assert opened == []


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('image,color,note\np1.jpg,red,x\np2.jpg,blue,"13 inch\np3.jpg,green,y\n', 3),
        ('image,note\np1.jpg,x\np2.jpg,"13 inch', 3),
        ('image,note\np1.jpg,"13 inch\np2.jpg,x\np3.jpg,"15 inch"\np4.jpg,x\n', 2),
        ('image,note\np1.jpg,"13 inch\np2.jpg,x\np3.jpg,15"\np4.jpg,x\n', 2),
        ('image;note\n"p1.jpg;x\np2.jpg;y\n', 2),
        ('image,"note\np1.jpg,x\n', 1),
        ('sep=,\nimage,note\np1.jpg,"x\np2.jpg,y\n', 3),
        (
            'image,note\nhttps://x.org/1.jpg?v=1,"13 inch\nhttps://x.org/2.jpg?v=2,y"\nhttps://x.org/3.jpg,z\n',
            2,
        ),
        ('color,image,note\n"red, big",p1.jpg,"13 inch\nblue,p2.jpg,y"\nred,p3.jpg,z\n', 2),
    ],
)
def test_a_quotation_mark_that_swallows_rows_is_refused_with_its_line(tmp_path, text, line):
    (problem, *_) = read(tmp_path / "t.csv", text.encode()).problems
    assert problem.startswith(f"t.csv, line {line}: a quotation mark is ")


def test_a_mark_that_swallows_more_than_a_cell_may_hold_is_named(tmp_path):
    swallowed = "p2.jpg,x\n" * (tables.MAX_CELL // 8)
    table = read(tmp_path / "t.csv", f'image,note\np1.jpg,"13 inch\n{swallowed}'.encode())
    says = "a cell has more than 1,000,000 characters: shorten it, or close its quotation mark"
    assert table.problems == (f"t.csv, line 2: {says}",)


def test_quoted_cells_may_have_lines_and_inches(tmp_path):
    text = 'image,note\np1.jpg,"first, and\nsecond"\np2.jpg,13" wide\np3.jpg,"13"" wide"\n'
    table = read(tmp_path / "t.csv", text.encode())
    assert table.problems == ()
    assert [row.line for row in table.rows] == [2, 4, 5]
    assert [row.cells[1] for row in table.rows] == ["first, and\nsecond", '13" wide', '13" wide']


def test_rows_of_another_width_are_named(tmp_path):
    table = read(tmp_path / "t.csv", b"image,color\np1.jpg,red,x\np2.jpg\np3.jpg,red\n")
    assert [row.cells for row in table.rows] == [("p3.jpg", "red")]
    says = "write a cell for each column, and quote cells that contain the separator"
    assert table.problems == (
        f"t.csv, line 2: the row has 3 cells, but the header has 2: {says}",
        f"t.csv, line 3: the row has 1 cells, but the header has 2: {says}",
    )


@pytest.mark.parametrize(
    "text",
    [
        "image,color,,\np1.jpg,red,,\n",
        ",image,,color\n,p1.jpg,,red\n",
        "image,color\np1.jpg,red,,\n",
        "\n\nimage,color\n\np1.jpg,red\n\n\n",
        'image, color\n"p1.jpg", "red"\n',
        "\ufeff\u200bimage|color\ufeff\np1.jpg\u200b|red\n",
    ],
)
def test_what_surrounds_cells_and_columns_does_not_matter(tmp_path, text):
    table = read(tmp_path / "t.csv", text.encode())
    assert table.header == ("image", "color")
    assert [row.cells for row in table.rows] == [("p1.jpg", "red")]
    assert table.problems == ()


@pytest.mark.parametrize("text", ["Spring list\n\nimage;color\np1.jpg;red\n", "List,,\nimage,color,price\n"])
def test_lines_above_the_header_are_named(tmp_path, text):
    table = read(tmp_path / "t.csv", text.encode())
    assert table.rows == ()
    assert table.problems == (
        "t.csv, line 1: this line has one cell, and the lines below have more: remove the lines above the "
        "names of the columns",
    )


def test_errors_of_a_spreadsheet_are_unknown_and_named(tmp_path):
    table = read(tmp_path / "t.csv", b"image,color,price\np1.jpg,#N/A,#DIV/0!\np2.jpg,#1 red,#REF!\n")
    assert [row.cells for row in table.rows] == [("p1.jpg", "?", "?"), ("p2.jpg", "#1 red", "?")]
    assert "3 cells with an error of a spreadsheet, taken as unknown (lines 2, 3)" in table.notes[0]


def test_json_lines_keep_numbers_as_they_are_written(tmp_path):
    lines = ['{"image": "p1.jpg", "ean": 123456789012345678, "price": 10.0, "new": true, "tags": ["a", "b"]}']
    lines += ["", '{"image": "p2.jpg", "color": null}', "{broken", '{"image": {"a": 1}}', "[1]"]
    table = read(tmp_path / "t.jsonl", "\n".join(lines).encode())
    assert table.header == ("image", "ean", "price", "new", "tags", "color")
    assert table.rows[0].cells == ("p1.jpg", "123456789012345678", "10.0", "true", "a, b", "")
    assert [(row.line, row.cells[0]) for row in table.rows] == [(1, "p1.jpg"), (3, "p2.jpg")]
    assert [problem.split(":")[0] for problem in table.problems] == [f"t.jsonl, line {n}" for n in (4, 5, 6)]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"image": "p1.jpg", "color": "red", "color": "blue"}', "the name 'color' comes several times"),
        ('{"image": "p1.jpg", "color": "a\\u0000b"}', r"the character '\\x00' in 'color' is not allowed"),
        ('{"image": "p1.jpg", "color": "\\ud83d"}', r"the character '\\ud83d' in 'color' is not allowed"),
        ('{"image": "p1.jpg", "variants": [{"size": "S"}]}', "'variants' holds an object"),
    ],
)
def test_objects_that_are_no_rows_are_named_with_their_line(tmp_path, line, says):
    good = '{"image": "p2.jpg", "color": "a\u2028b"}'
    table = read(tmp_path / "t.jsonl", f"{good}\r\n{line}\r\n".encode())
    assert [row.cells for row in table.rows] == [("p2.jpg", "a\u2028b")]
    (problem,) = table.problems
    assert problem.startswith("t.jsonl, line 2: ")
    assert re.search(says, problem)


def workbook(path, rows, **sheets):
    book = Workbook()
    for row in rows:
        book.active.append(row)
    for name, its in sheets.items():
        sheet = book.create_sheet(name)
        for row in its:
            sheet.append(row)
    book.save(path)
    return path


def test_a_workbook_is_read_as_it_is_shown(tmp_path):
    day = datetime.datetime(2024, 5, 1)
    rows = [
        ("image", "price", "n", "day", "new", "code"),
        ("p1.jpg", 39.9, 12.0, day, True, None),
        (),
        ("p2.jpg",),
    ]
    path = workbook(tmp_path / "t.xlsx", rows)
    (row, short) = read_table(path).rows
    assert row.cells == ("p1.jpg", "39.9", "12", "2024-05-01", "true", "")
    assert (short.line, short.cells) == (4, ("p2.jpg", "", "", "", "", ""))


def test_a_code_in_a_workbook_keeps_its_zeros(tmp_path):
    book = Workbook()
    book.active.append(("image", "code"))
    book.active.append(("p1.jpg", 7))
    book.active["B2"].number_format = "000"
    book.save(tmp_path / "t.xlsx")
    assert read_table(tmp_path / "t.xlsx").rows[0].cells == ("p1.jpg", "007")


def test_numbers_of_a_workbook_have_the_digits_that_it_shows(tmp_path):
    book = Workbook()
    for cells in (("image", "price", "weight", "off", "code"), ("p1.jpg", 19.99, 1e-7, 0.25, 1e17)):
        book.active.append(cells)
    book.active["D2"].number_format = "0%"
    book.save(tmp_path / "t.xlsx")
    with zipfile.ZipFile(tmp_path / "t.xlsx") as parts:
        content = {name: parts.read(name) for name in parts.namelist()}
    # As a spreadsheet program stores the sum of 9.99 and 10.
    content["xl/worksheets/sheet1.xml"] = content["xl/worksheets/sheet1.xml"].replace(
        b"<v>19.99</v>", b"<v>19.989999999999998</v>"
    )
    with zipfile.ZipFile(tmp_path / "t.xlsx", "w") as parts:
        for name, data in content.items():
            parts.writestr(name, data)
    table = read_table(tmp_path / "t.xlsx")
    assert table.rows[0].cells == ("p1.jpg", "19.99", "0.0000001", "25%", "100000000000000000")
    assert "spreadsheets round numbers of more than 15 digits (E2)" in table.notes[0]


def test_merged_cells_count_for_each_row(tmp_path):
    book = Workbook()
    for cells in (
        ("image", "color", "price"),
        ("p1.jpg", "red", 1),
        ("p2.jpg", None, 2),
        ("p3.jpg", None, 3),
    ):
        book.active.append(cells)
    book.active.merge_cells("B2:B3")
    book.active.merge_cells("E1:G1")
    book.save(tmp_path / "t.xlsx")
    table = read_table(tmp_path / "t.xlsx")
    assert [row.cells[1] for row in table.rows] == ["red", "red", ""]
    assert table.notes == ("t.xlsx: cells that are merged over several rows count for each of them (B2:B3)",)


def test_a_hidden_sheet_is_not_the_first(tmp_path):
    book = Workbook()
    book.active.title = "Lists"
    book.active.sheet_state = "hidden"
    book.create_sheet("Products").append(("image", "color"))
    book.save(tmp_path / "t.xlsx")
    table = read_table(tmp_path / "t.xlsx")
    assert table.header == ("image", "color")
    says = "t.xlsx: the sheet 'Products' is read, and not Lists: --sheet-name names another one"
    assert table.notes == (says,)
    assert read_table(tmp_path / "t.xlsx", sheet="Lists").header == ()


def test_a_table_that_has_no_sheets_has_none_of_that_name(tmp_path):
    with pytest.raises(
        DataError, match=r"is not a workbook .*, so it has no sheet 'Products': name no sheet"
    ):
        read(tmp_path / "t.csv", b"image,color\np1.jpg,red\n", sheet="Products")


def test_a_sheet_is_chosen_by_name(tmp_path):
    path = workbook(tmp_path / "t.xlsx", [("a",), ("1",)], Products=[("image",), ("p1.jpg",)])
    assert read_table(path).header == ("a",)
    assert "'Sheet' is read, and not Products" in read_table(path).notes[0]
    assert read_table(path, sheet="Products").header == ("image",)
    with pytest.raises(DataError, match="no sheet 'Product'; did you mean 'Products'"):
        read_table(path, sheet="Product")


def test_a_workbook_is_bounded(tmp_path, monkeypatch):
    path = workbook(tmp_path / "t.xlsx", [("image", "color"), *[("p1.jpg", "red")] * 9])
    monkeypatch.setattr(tables, "MAX_ROWS", 8)
    assert "more than 8 rows" in read_table(path).problems[0]
    monkeypatch.setattr(tables, "MAX_COLUMNS", 1)
    assert "more than 1 columns" in read_table(path).problems[0]
    monkeypatch.setattr(tables, "MAX_UNPACKED", 1000)
    with pytest.raises(DataError, match="unpacks to"):
        read_table(path)


def test_what_is_no_table_is_one_sentence(tmp_path):
    with zipfile.ZipFile(tmp_path / "z.xlsx", "w") as archive:
        archive.writestr("a.txt", "x")
    for name, data, message in [
        ("z.xlsx", (tmp_path / "z.xlsx").read_bytes(), "cannot be read as a workbook"),
        ("cut.xlsx", (tmp_path / "z.xlsx").read_bytes()[:40], "cannot be read as a workbook"),
        ("old.xls", b"\xd0\xcf\x11\xe0" * 4, "save it as .xlsx"),
        ("a.csv", b"image,color\np1.jpg,a\0b\n", "line 2: the character "),
        (
            "cut.csv",
            "image,color\np1.jpg,red".encode("utf-16")[:-1],
            "begins as UTF-16 and cannot be read to",
        ),
        (
            "locked.xlsx",
            b"\xd0\xcf\x11\xe0" + "EncryptedPackage".encode("utf-16-le"),
            "with a password: save it",
        ),
        ("packed.csv", gzip.compress(b"image,color"), "not a text and not a workbook, so it is not a table"),
        ("p1.csv", b"\xff\xd8\xff\xe0" + bytes(range(99)), "not a text and not a workbook"),
        (
            "a.json",
            json.dumps({"image": "p1.jpg"}, indent=1).encode(),
            "does not hold one object in each line",
        ),
        ("b.csv", b"image,color\np1.jpg,\x81\n", "line 2: it is not UTF-8 text, and not Windows-1252"),
    ]:
        with pytest.raises(DataError, match=message) as error:
            read(tmp_path / name, data)
        assert "\n" not in str(error.value)
    with pytest.raises(DataError, match="cannot be read"):
        read_table(tmp_path / "nowhere.csv")


@pytest.mark.filterwarnings("ignore:File contains an invalid specification")
def test_a_strict_workbook_is_named(tmp_path):
    path = workbook(tmp_path / "t.xlsx", [("image",), ("p1.jpg",)])
    with zipfile.ZipFile(path) as parts:
        content = {name: parts.read(name) for name in parts.namelist()}
    usual, strict = b"http://schemas.openxmlformats.org/", b"http://purl.oclc.org/ooxml/"
    with zipfile.ZipFile(path, "w") as parts:
        for name, data in content.items():
            if not name.startswith(("_rels", "[Content")):
                data = data.replace(usual, strict).replace(
                    b"ooxml/spreadsheetml/2006/", b"ooxml/spreadsheetml/"
                )
            parts.writestr(name, data)
    with pytest.raises(DataError, match="has no sheet that can be read: save it as a common"):
        read_table(path)


def test_an_ending_does_not_matter(tmp_path):
    path = workbook(tmp_path / "t.csv", [("image",), ("p1.jpg",)])
    assert read_table(path).header == ("image",)
    assert read(tmp_path / "t.xlsx", json.dumps({"image": "p1.jpg"}).encode()).header == ("image",)


def test_sizes_that_a_spreadsheet_made_dates_are_named(tmp_path):
    day = datetime.datetime(2024, 12, 10)
    rows = [("image", "size", "since"), ("a.png", "8-10", day), ("b.png", day, day), ("c.png", day, "?")]
    table = read_table(workbook(tmp_path / "shop.xlsx", rows))
    assert [note for note in table.notes if "2 cells with a date" in note and "(B3, B4)" in note]


def test_formulas_that_nobody_computed_are_named(tmp_path):
    book = Workbook()
    for row in (["image", "color", "price"], ["a.png", "red", "=1+2"], ["b.png", "=CONCAT(B2)", 5]):
        book.active.append(row)
    book.save(tmp_path / "shop.xlsx")
    table = read_table(tmp_path / "shop.xlsx")
    assert len(table.problems) == 1
    assert "2 formulas without a stored value (C2, B3): open the file" in table.problems[0]
    # As a spreadsheet program saves it: the value stands beside the formula.
    with zipfile.ZipFile(tmp_path / "shop.xlsx") as parts:
        content = {name: parts.read(name) for name in parts.namelist()}
    sheet = "xl/worksheets/sheet1.xml"
    content[sheet] = content[sheet].replace(b'<c r="B3"', b'<c t="str" r="B3"')  # an empty text
    content[sheet] = re.sub(rb"<v ?/>|<v></v>", b"<v>3</v>", content[sheet], count=1)
    with zipfile.ZipFile(tmp_path / "saved.xlsx", "w") as parts:
        for name, data in content.items():
            parts.writestr(name, data)
    table = read_table(tmp_path / "saved.xlsx")
    assert table.problems == ()
    assert [row.cells for row in table.rows] == [("a.png", "red", "3"), ("b.png", "", "5")]
