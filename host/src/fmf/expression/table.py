#!/usr/bin/env python3
"""Prints table.jsonl: what CPython makes of expressions over data.json. Run by hand when rows are added.

A row is [expression, text]: the `repr` of the value, or `!` and the class of the exception.
"""
import json
import pathlib
import warnings

warnings.simplefilter("ignore")
DATA = json.loads((pathlib.Path(__file__).parent / "data.json").read_text())

BY_HAND = r"""
tier == 1
tier == '1'
'tier' in locals()
'nokey' in locals()
'enabled' not in locals() or enabled
nokey
nokey == 1
not nokey
tag and 'slow' in tag
'slow' not in tag
environment['A'] == 'x'
environment['B']
environment.get('B')
environment.get('B', 'z')
environment.get('A') == 'x' and tier
'A' in environment
'A' in environment.keys()
'x' in environment.values()
('A', 'x') in environment.items()
any(k.startswith('A') for k in environment)
any(k == 'A' and v == 'x' for k, v in environment.items())
[k for k, v in environment.items() if v]
{k: len(v) for k, v in environment.items()}
sorted(environment)
len(environment.keys())
len(tag) > 1
len(tag) == 2 == len(tag)
1 < tier < 3
0 < tier <= 1 != 2
1 < 2 > 1
1 in [1] in [[1]]
'a' in 'abc' == True
tier < 'x'
tier < None
tier is None
tier is not None
nothing is None
nothing is not None
enabled is True
enabled is False
tier is True
name.startswith('/core')
name.startswith(('/x', '/core'))
name.endswith('smoke')
name.endswith(1)
name.split('/')
name.split('/')[1]
name.split('/')[-1].upper()
name.split('/')[9]
name[0]
name[-1]
name[1:5]
name[::-1]
name[5:1]
name[::2]
name[::0]
tag[0]
tag[5]
tag['x']
tag[-1:]
tag[:1] + ['x']
tag + ('x',)
tag * 2
2 * tag
'ab' * 3
'ab' * -1
[1] * True
'a' + 1
'a' 'b' == 'ab'
"it's"
'a\tb\x41\u00e9\101\q'
r'a\tb'
'''a
b'''
u'x'
1_000
0x1F + 0o17 + 0b11
1e3
.5 + 1.
10 ** 20
10 ** -1
2 ** 0.5
-2 ** 2
0 ** 0
7 // 2
-7 // 2
7 // -2
-7 % 3
7 % -3
7.5 // 2
-7.5 % 2
1 / 2
4 / 2
1 / 0
1 // 0
1 % 0
1.0 / 0
1.0 % 0
True + True
True & False
6 & 3
6 | 3
6 ^ 3
~5
-True
+'x'
-'x'
not ''
not []
not {}
not 0.0
[] or 'x'
'x' and 0
'a' or nokey
0 and nokey
1 if tier else nokey
nokey if not tier else 2
'a' if enabled else 'b'
int('12') + int(' -5 ')
int('1_0')
int('x')
int('0x1f', 16)
int('ff', 16)
int('0x1f')
int(1.9)
int(-1.9)
int(True)
int(None)
int([])
float('1.5')
float('1e3')
float('inf') > 1
float('x')
float('1_0.5')
float('_1')
float(None)
str(1.0)
str(1)
str(None)
str(True)
str([1, 'a', None])
str({'a': [1.5]})
repr('a')
bool('')
bool([0])
list('abc')
list(environment)
tuple([1, 2])
set([1, 1.0, True]) == {1}
{1, 2} == {2, 1}
{1, 2} & {2, 3} == {2}
{1} | {2} == {1, 2}
{1, 2} - {2} == {1}
{1} ^ {1, 2} == {2}
{1} < {1, 2}
{1} <= {1}
{1} < {2}
set(tag) & {'slow'} == {'slow'}
set(tag).issubset({'slow', 'net', 'x'})
set(tag).isdisjoint(['x'])
set([[]])
{[]: 1}
{}[[]]
dict([('a', 1)])['a']
{'a': 1} | {'b': 2}
{'a': 1, 'b': 2} == {'b': 2, 'a': 1}
{1: 'x'}[True]
{1: 'x'}[1.0]
sorted([3, 1, 2])
sorted(['b', 'a'])
sorted([1, 'a'])
sorted([])
min([3, 1])
max(1, 2, 3)
max([])
min('b', 'a')
sum([1, 2.5])
sum([])
sum(['a'])
abs(-5)
abs(-1.5)
abs('x')
any([])
all([])
any([0, '', None, 1])
all([1, 0])
any(t == 'slow' for t in tag)
all(t for t in tag)
any(x['k'] == 1 for x in items)
any(x['k'] == 2 for x in items)
any(x.get('k') == 2 for x in items)
[x['k'] for x in items if 'k' in x]
[a + b for a in [1, 2] for b in [10, 20] if a + b != 12]
[x for x in [1, 2, 3] if x > 1 if x < 3]
[a for a, (b, c) in [(1, (2, 3))]]
[a for a, b in [(1, 2, 3)]]
[a for a, b in [(1,)]]
[a for a, b in [1]]
{x % 2 for x in [1, 2, 3]} == {0, 1}
[x for x in 5]
len(x for x in tag)
len(5)
len(nokey)
len('äö')
'x' in 5
5 in 'x'
[] in {}
1 in {1: 2}
'a' in {'a'}
nothing.get('x')
nothing['x']
tier['x']
tier.lower()
tag.lower()
'A-b'.lower()
'ab'.upper()
'hello world'.title()
'hELLO'.capitalize()
'  x '.strip()
'xxaxx'.strip('x')
'xxaxx'.lstrip('x')
'xxaxx'.rstrip('x')
'a,b,,c'.split(',')
'a,b,,c'.split(',', 1)
' a  b c '.split()
' a  b c '.split(None, 1)
'a'.split('')
'a\nb\r\nc\n'.splitlines()
','.join(['a', 'b'])
','.join('abc')
','.join([1])
','.join(t for t in tag)
'aXbX'.replace('X', 'yy')
'ab'.replace('', '-')
'hello'.find('l')
'hello'.rfind('l')
'hello'.find('z')
'hello'.index('z')
'hello'.count('l')
'hello'.count('')
'a=b=c'.partition('=')
'a=b=c'.rpartition('=')
'abc'.partition('x')
'abc'.removeprefix('a')
'abc'.removesuffix('c')
'12'.isdigit()
''.isdigit()
'ab1'.isalnum()
'ab'.isalpha()
'Ab'.islower()
'a1'.islower()
'1'.isupper()
' \t'.isspace()
[1, 1.0, True, 2].count(1)
[1, 2].index(2)
[1, 2].index(3)
(1, 2).index(2)
tag.count('slow')
isinstance(tag, list)
isinstance(tag, (str, list))
isinstance(enabled, int)
isinstance(tier, bool)
isinstance(tag, nokey)
isinstance(tag, (list, nokey))
(1, 2) < (1, 3)
[1, 2] < [1]
[1] < (1,)
() == []
(1,) == (1,)
1 == 1.0 == True
'1' == 1
None == 0
None < None
1, 2
(1, 2)
(1)
()
[1, 2, ]
  tier
tier # comment
(tier
 == 1)
tier ==
== 1
tier = 1
tier == 1 2
a b
'abc
(1
1)
[1
tier === 1
tier <> 1
x for x in y
import os
return 1
01
1__0
1_
0x
"\xZ"
'a' if 1
not
1 +
[x for x in]
len(1 for x in [1], 2)
weight > 1
weight == 1.5
9007199254740993 == 9007199254740992.0
9007199254740993 > 9007199254740992.0
1e400
10 ** 30 % 7
2 ** 100 // 3
-1 ** 0.5
locals()['tier']
globals()['nokey']
locals().get('nokey', 5)
len
distro == 'x' or re.search('a', name)
str(weight) + str(tier)
'%' in name
'{}' == name
"tier" in locals() and tier == 1
'net' in tag and ('slow' in tag or tier > 5) and not manual
component == ['bash'] or 'bash' in component
"""
LITERALS = ["1", "0", "True", "None", "1.5", "'a'", "''", "[1]", "(1, 'a')", "{'a': 1}", "{1}"]
OPERATORS = ["==", "!=", "<", ">=", "in", "not in", "and", "or", "+", "-", "*", "/", "//", "**", "&", "|"]


def answer(expression):
    try:
        value = eval(expression, dict(DATA))
        if isinstance(value, (type(len), type, type({}.keys()))) or "generator" in type(value).__name__:
            return None
        return repr(value)
    except SyntaxError:
        return "!SyntaxError"
    except Exception as error:
        return "!" + type(error).__name__


def main():
    lines, rest = [], BY_HAND.strip("\n").split("\n")
    while rest:
        line = rest.pop(0)
        # Expressions that go on in the next line.
        while (line.count("'''") == 1 or line == "(tier") and rest:
            line += "\n" + rest.pop(0)
        lines.append(line)
    lines += [f"{a} {op} {b}" for op in OPERATORS for a in LITERALS for b in LITERALS]
    for line in lines:
        text = answer(line)
        if text is not None:
            print(json.dumps([line, text], ensure_ascii=False))


main()
