#!/usr/bin/env python3
"""Lends directories of this box as machines: the whole protocol in 30 lines."""
import json, pathlib, shutil, sys, time

ask = json.loads(sys.stdin.readline())
options = ask["options"]
pool = pathlib.Path(options["directory"])

def say(**answer):
    print(json.dumps(answer), flush=True)

def reserve():
    home = pool / ask["lease"]["id"]          # named by the lease: found again, whatever happens
    home.mkdir(parents=True, exist_ok=True)
    (home / "mark").write_text(ask["mark"])
    say(progress="warming up")
    time.sleep(options.get("boot_s", 0))
    say(machine={"id": home.name, "transport": {"kind": "local", "directory": str(home)}, "disposable": True})

def remove(name):
    shutil.rmtree(pool / pathlib.Path(name).name, ignore_errors=True)
    say()

def held():
    marks = {file.parent.name: file.read_text() for file in pool.glob("*/mark")}
    ours = ask["owner"] + "/" if ask["owner"] else ""
    say(held=[{"id": name, "mark": mark} for name, mark in marks.items() if mark.startswith(ours)])

request = ask["request"]
if request == "reserve": reserve()
elif request == "release": remove(ask["machine"])
elif request == "abort": remove(ask["lease"])
elif request == "list": held()
elif request == "alive": say(alive=(pool / ask["machine"] / "mark").exists())
else: say(error={"kind": "unsupported", "message": f"no {request} here"})
