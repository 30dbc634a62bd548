#!/usr/bin/env python3
"""
Packs directories of recorded trees into one file, and unpacks them again.

  pack.py pack DIR FILE      DIR/NAME/{tree/, case.json, expected-N.json} -> FILE
  pack.py unpack FILE DIR

FILE has a case per line: its name, its directories, files (text, or base64 for what is not UTF-8) and symbolic links,
and its runs with arguments and expected output. It is compressed if its name ends in .gz.
"""
import base64, gzip, json, os, sys


def opened(path, mode):
    if not path.endswith(".gz"):
        return open(path, mode + "t", encoding="utf-8")
    if mode == "r":
        return gzip.open(path, "rt", encoding="utf-8")
    # No name and no time of packing in it: the same trees make the same file.
    import io
    return io.TextIOWrapper(gzip.GzipFile("", "wb", 9, open(path, "wb"), 0), encoding="utf-8")


def pack(directory):
    case = json.load(open(os.path.join(directory, "case.json")))
    links = case.get("symlinks", {})
    out = {"name": os.path.basename(directory), "doc": case.get("doc", ""), "directories": [], "files": {}, "binary": {}, "links": {}, "runs": []}
    tree = os.path.join(directory, "tree")
    for path, dirs, files in os.walk(tree):
        for name in sorted(dirs) + sorted(files):
            full = os.path.join(path, name)
            short = os.path.relpath(full, tree)
            if os.path.islink(full) or short in links:
                out["links"][short] = links[short] if short in links else os.readlink(full)
            elif os.path.isdir(full):
                out["directories"].append(short)
            else:
                data = open(full, "rb").read()
                try:
                    out["files"][short] = data.decode()
                except UnicodeDecodeError:
                    out["binary"][short] = base64.b64encode(data).decode()
    out["directories"].sort()
    for run in case["runs"]:
        out["runs"].append({"args": run["args"], "expected": json.load(open(os.path.join(directory, run["expected"])))})
    return {key: value for key, value in out.items() if value or key == "runs"}


def unpack(case, directory):
    tree = os.path.join(directory, "tree")
    os.makedirs(tree)
    for short in case.get("directories", []):
        os.makedirs(os.path.join(tree, short), exist_ok=True)
    for short, text in case.get("files", {}).items():
        open(os.path.join(tree, short), "wb").write(text.encode())
    for short, text in case.get("binary", {}).items():
        open(os.path.join(tree, short), "wb").write(base64.b64decode(text))
    for short, target in case.get("links", {}).items():
        os.symlink(target, os.path.join(tree, short))
    runs = []
    for number, run in enumerate(case["runs"]):
        runs.append({"args": run["args"], "expected": f"expected-{number}.json"})
        json.dump(run["expected"], open(os.path.join(directory, f"expected-{number}.json"), "w"))
    json.dump({"name": case["name"], "runs": runs}, open(os.path.join(directory, "case.json"), "w"), indent=1)


def main():
    what, source, target = sys.argv[1:]
    if what == "pack":
        names = sorted(name for name in os.listdir(source) if os.path.exists(os.path.join(source, name, "case.json")))
        with opened(target, "w") as out:
            for name in names:
                out.write(json.dumps(pack(os.path.join(source, name)), ensure_ascii=False) + "\n")
    else:
        for line in opened(source, "r"):
            case = json.loads(line)
            unpack(case, os.path.join(target, case["name"]))


main()
