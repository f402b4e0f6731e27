"""The page of test coverage: shares of the whole, of each room, and of the least covered modules."""

from benchmarks.write_coverage import written


def summary(statements, covered, branches, taken):
    counts = {"num_statements": statements, "covered_lines": covered}
    return counts | {"num_branches": branches, "covered_branches": taken}


def test_shares_are_of_lines_and_branches():
    files = {
        "src/dqecir/index/exact.py": {"summary": summary(80, 80, 20, 10)},
        "src/dqecir/index/scan.py": {"summary": summary(100, 100, 0, 0)},
        "src/dqecir/errors.py": {"summary": summary(0, 0, 0, 0)},
    }
    page = written(
        {
            "meta": {"version": "7", "timestamp": "2026-11-30T15:37:18"},
            "files": files,
            "totals": summary(180, 180, 20, 10),
        }
    )
    assert "covers **95.0 %** of the package's lines and branches" in page
    assert "| index/ | 180 | 20 | 95.0 % |" in page
    assert "| top level | 0 | 0 | 100.0 % |" in page
    assert "Modules that are not fully covered:" in page
    assert "| `index/exact.py` | 90.0 % |" in page
    assert "scan.py" not in page
    assert "2026-11-30)" in page
