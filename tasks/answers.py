r"""Reading the answer out of a response.

    extract_answer(r"... so \boxed{\frac12}.")   "\frac12"       an answer that is marked
    answer_in("the largest n is 34")             "34"            an answer in free text

Only what follows the thinking counts. Any text is read quickly, and none raises.
"""

import re

TAGS = re.compile(r"</?(?:think|answer)>")
ANSWER_BLOCK = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.DOTALL)
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_EMPHASIS = re.compile(
    r"(?<![\w)*])\*{2,3}(?=[^\s*])((?:(?!\*\*)[^\n]){1,200})(?<=[^\s*])\*{2,3}(?![\w(*])"
)
_DELIMITED = re.compile(
    r"(?<!\\)\$\$?((?:[^$\\]|\\.)+)\$\$?"  # $...$
    r"|\\\(((?:(?!\\\().)*?)\\\)"  # \(...\)
    r"|\\\[((?:(?!\\\[).)*?)\\\]",  # \[...\]
    re.DOTALL,
)
# The names of measures, the plain one first; what words after a number make of it
_MEASURES = r"""centimetre cm centimeter 厘米|metre meter 米|kilometre km kilometer 公里 千米|mph
millimetre mm millimeter|mile mi|inch inches|foot ft feet|yard yd|gram 克|kilogram kg kilo 千克
milligram mg|pound lb|ounce oz|second sec 秒|minute min 分钟|hour hr 小时|day 天|week|month|year yr
cent|dollar 美元 USD \$|euro €|sterling £|yen ¥|yuan 元|litre liter|millilitre ml mL|degree
percent percentage pct|SQUARE square squared sq ^2 平方|CUBIC cubic cubed cu ^3 立方"""
_SCALES = """*12 dozen 打|*20 score|*100 hundred 百|*1000 thousand 千 тысяч тыс mil mille 천
*10000 万 萬 만|*100000 lakh|*1000000 million 百万 миллион млн millones Millionen|*10000000 crore
*100000000 亿 億 억|*1000000000 billion|*1000000000000 trillion|^2 squared|^3 cubed"""
MEASURES, SCALES = (
    {name: names.split()[0] for names in re.split(r"[|\n]", table) for name in names.split()}
    for table in (_MEASURES, _SCALES)
)
_WORDS = sorted({*MEASURES, *SCALES}, key=len, reverse=True)
AMOUNT = "|".join(re.escape(word) for word in _WORDS if word[0] not in "*^")
LETTER = r"[^\W\d_A-Za-z\u0370-\u03ff]"  # neither Latin nor Greek
_NUMBER = r"[-−]?(?:\d+ \d+/\d+|\d{1,3}(?: \d{3})+(?!\d)|(?:\d[\d,]*)?\.?\d+(?:[/:]\d+)?%?)"
CHANGING = re.compile(  # words after a number that make it another one
    r"[半多余以约兆조]|\b(?:than|plus|minus|half|halves|thirds?|fourths?|quarters?|tens|gross|roots?"
    r"|\w*(?:[dfx]|gh|ie|(?<!mo)n)ths?|below|factorial|choose|negative|mod|modulo|less|doubled|tripled)\b"
)
_SAID = re.compile(  # announces an answer
    r"(?:the|my|our|final|correct) answers? (?:is|are)\b(?: (?:therefore|thus|equal to)\b)?[\s:：]*"
    r"|\banswers?\s*[:：](?!\W*(?-i:[A-Z][a-z]* [$a-z])[^\n]*[$\d])[\s:：]*"
    r"|(?:答案|答え|ответ|উত্তর)\s*[是为は:：][\s:：]*|【答案】[\s:：]*"
    r"|^[^\w\n]{0,9}(?:final )?answer\s*(?=\$|\\[(\[]|[-\d.,/]+$)",
    re.IGNORECASE | re.MULTILINE,
)
# says right before or after an answer that it is none
_DOUBTED = re.compile(
    r"(?i)(?:(?:n['’]t|\bnot)\s+(?:think|believe|say|sure)\b[^.,;:\n\d]*"
    r"|(?<!\bno )\bdoubt(?: that)?(?: the answer is)?|\bwhether"
    r"|(?:n['’]t|\bnot|\bnever|\bunlikely)(?: to)?(?: be| equal(?: to)?)?)\s*$"
)
_DENIED = re.compile(
    r"(?i)\W{0,3}(?:is|was)(?:n['’]t| not| wrong| incorrect| impossible"
    r"| too (?:small|large|big|low|high|few|many))\b"
)
_SENTENCE = re.compile(  # the same, in an <answer> only
    r"\b(?:result|solution|value) is\b[\s:]*|结果[是为][\s:：]*"
    r"|^(?=[A-Z][a-z]).*\b(?:is|are|equals)\b[\s:]*(?=[-+$\\(\[{.\d])"
)
_SENTENCE_END = re.compile(r"\n(?! )|。|\.\s+(?=[^\W\d_])|<\||</s>")
_REASON = re.compile(  # what goes on after an answer
    r"(?<=[\s,，(])(?:in total|because|since|so|as|which|hence|thus|therefore|see|i\.e|rather than"
    r"|(?:and |but )?not)\b|\s(?:when|where|if|for)(?= \$?[A-Za-z] ?=)|因为|因此|所以"
    r"|(?<=[^\s,(])[,\s(]{1,5}(?:or|which is)\s+(?:approximately|about|roughly)\b"
)
_ITEM = re.compile(r"(?<=\n)(?:[-*•>] +|```\w*\s+)")  # where an answer stands on its own line
_HEADING = re.compile(r"Step |(?:Final )?Answer\s*$", re.IGNORECASE)  # no answer after "#### "
_FREE_TEXT = 20_000  # characters before the end that answer_in reads


def thinking(text: str) -> str:
    """The text before the answer: inside <think>, or up to </think>, <answer> or the end."""
    return re.split(r"</think>|<answer>", text, maxsplit=1)[0].replace("<think>", "")


def after_thinking(text: str) -> str:
    """The text after the thinking (an <answer> ends it too): "" if the thinking never ends."""
    if "<think>" in text and "</think>" not in text:
        return text[text.find("<answer>") :] if "<answer>" in text else ""
    return text.rpartition("</think>")[2]


def extract_answer(text: str) -> str | None:
    r"""The final answer that a response marks, or None. It is the last <answer> block (which may
    be a sentence), else the last \boxed{}, unless "the answer is" and mathematics follow it, else
    the line after the last "#### ", else what follows the last "the answer is" or "Answer:". Boxes
    that one statement joins are one list: "\boxed{1} and \boxed{2}" gives "1, 2". A box that is
    never closed gives None."""
    text = _EMPHASIS.sub(r"\1", after_thinking(text))
    block = ANSWER_BLOCK.findall(text)
    text = block[-1] if block else text
    boxes, said = list(_BOX.finditer(text)), list(_SAID.finditer(text))
    said = [m for m in said if not _DOUBTED.search(text[max(0, m.start() - 60) : m.start()])]
    said = said or (list(_SENTENCE.finditer(text)) if block else [])
    stated = _stated(text, said[-1].end()) if said else None
    if boxes:
        end = closing_bracket(text, boxes[-1].end() - 1)
        later = stated and 0 <= end < said[-1].start() and _MATH.fullmatch(stated)
        return stated if later else _boxed(text)
    line = text.rpartition("#### ")[2].split("\n")[0]
    if not block and "#### " in text and not (_SAID.search(line) or _HEADING.match(line)):
        return _bare(line)
    return _bare(text) if block and not said else stated


def _stated(text: str, start: int) -> str | None:
    """The answer that begins there: to the end of the sentence, or of its mathematics
    (which may go on over lines) and what follows; without reasons."""
    item = _ITEM.match(text, start)
    text = text[item.end() if item else start :]
    delimited = _DELIMITED.match(text)
    end = _SENTENCE_END.search(text, delimited.end() if delimited else 0)
    text = text[: end.start()] if end else text
    reason = _REASON.search(text)
    text = text[: reason.start()].rstrip(" ,，(;:–—-") if reason else text
    return _bare(re.sub(r"^([\d.,]+)[!?]$", r"\1", text.strip()))


def _bare(text: str) -> str | None:
    """An answer without the full stop after it and the decoration around it."""
    text = text.strip().rstrip("。").removesuffix(".")
    text = re.sub(r"\s*[\u2600-\u27bf\U0001f300-\U0001faff\ufe0f]+$", "", text)
    text = re.sub(r"^([*`_]{1,3})([^\n]+)\1$|^[\"'“‘]([^\n\"'“”‘’]+)[\"'”’]$", r"\2\3", text)
    text = text.removesuffix(".")
    if text.count("}") > text.count("{"):  # \text{The answer is 460}
        text = text.removesuffix("}")
    return text.strip() or None


def _boxed(text: str) -> str | None:
    boxes, end = [], 0
    while start := _BOX.search(text, end):
        between = text[end : start.start()]
        end = closing_bracket(text, start.end() - 1) + 1
        if not end:
            return None
        if not _joins(between):
            boxes.clear()
        *said, box = _SAID.split(text[start.end() : end - 1])
        boxes.append(_bare(box.lstrip("} ")) if said else box.strip())
    return ", ".join(dict.fromkeys(filter(None, boxes))) or None


def closing_bracket(text: str, start: int) -> int:
    """The index where the bracket that opens at start is closed, or -1. A brace is closed by a
    brace; other brackets by any: [0,1) is balanced."""
    openers, closers = ("{", "}") if text[start] == "{" else ("([{", ")]}")
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] in openers) - (text[i] in closers)
        if depth == 0:
            return i
    return -1


def _joins(between: str) -> bool:
    """Whether the text between two boxes makes them parts of one answer: it is short, within a
    sentence, and has a comma, "and", "or" or no word at all."""
    if len(between) > 60 or re.search(r"[.\n]", between.strip()):
        return False
    plain = re.sub(r"\\[a-zA-Z]+|\\.", " ", between)
    return bool(re.search(r",|\b(?:and|or)\b|^[^\w=]*$", plain))


_WORD = re.compile(rf"(?<![\\A-Za-z])[A-Za-z]{{2,}}|{LETTER}[^\s\w]?{LETTER}")
_MATH = re.compile(  # mathematics or a number, and its measure
    rf"(?:{_DELIMITED.pattern}|(?<![0-9A-Za-z_.\\])({_NUMBER}))"
    rf"(?:m[²³]|\s*k?m/(?:h|s)\b(?:\^2|²)?)?((?:\s*(?:(?:{AMOUNT}|per)s?(?![A-Za-z])|\$))*)",
    re.DOTALL,
)
_JOINED = re.compile(r"\s*(?:,|,?\s*\b(?:and|or)\b)\s*")  # between the parts of a list
_BEFORE = re.compile(
    r"(?:[-+*/^_{(\[|\\×÷·−\d]|\\[A-Za-z]+|\b(?:than|not|plus|minus|times|least|most|up to"
    r"|(?i:step|equation|eq|figure|fig|table|page|section|chapter|example|theorem|lemma)\.?)) *$"
)
_WORKED = re.compile(  # stands before the number that it gives: "He has 5 + 2 ="
    r"(?:^|[A-Za-z]{2}[ ,:]|[:\n]) *\(?\.?\d[\d .,%()+*/×÷·−–-]*(?:=|equals) *$"
)
_AFTER = re.compile(  # after a number that is part of a formula
    r"[A-Za-z半多余]| *(?:[+*/^_}!\\{|×÷·−=>≤≥]|<(?!/)|[-–] *\d|\((?![A-Za-z]{2})"
    r"|(?![aAI])[A-Za-z](?![A-Za-z]))"
)


def answer_in(text: str) -> str:
    r"""The answer in free text, for a response in which extract_answer finds none: the last
    mathematics between $...$, \(...\), \[...\] or **...**, or the last number if that comes later,
    with those that commas, "and" and "or" join to it; "" if the number is part of a formula. A text
    of fewer than three words is itself the answer, unless it works something out, as "He has
    5 + 2 = 7" does. "" if thinking or a box is open."""
    if _BOX.search(text):
        return ""
    text = re.sub(r"<\|\w+\|>", " ", after_thinking(text)[-_FREE_TEXT:]).strip()
    text = _EMPHASIS.sub(lambda m: m[1] if _WORD.search(m[1]) else f"${m[1]}$", text)
    found = list(_MATH.finditer(text))
    if not found or not (any(not m[4] for m in found) or _is_sentence(text, found[-1])):
        return _bare(text) or ""
    parts = [found.pop()]
    while found and _JOINED.fullmatch(text, found[-1].end(), parts[0].start()):
        parts.insert(0, found.pop())
    start, end = parts[0].start(), parts[-1].end()
    before = text[max(0, start - 60) : start]
    doubted = _DOUBTED.search(before) or _DENIED.match(text, end)
    in_formula = parts[0][4] and _BEFORE.search(before[-20:])
    if doubted or in_formula or (parts[-1][4] and _AFTER.match(text, end)):
        return ""
    return ", ".join("".join(filter(None, m.groups())).strip() for m in parts)


def _is_sentence(text: str, last: re.Match) -> bool:
    """Three words or more; or fewer, and sums that give the last number."""
    words = len(_WORD.findall(text))
    worked = words and _WORKED.search(text[: last.start()]) and not _AFTER.match(text, last.end())
    return words >= 3 or bool(worked)


_LEAD = re.compile(  # what may stand before the only number of a sentence
    r".*\w\W+(?!(?:of|by|to|from|after|before|until|and)$)[a-z]{2,}|.*\b(?:total of|equal to)"
    r"|(?i:exactly|about|approximately|around|roughly|simply|just|indeed|actually|then|so|thus)\W*"
    rf"|(?:.*(?:[a-z]{{2}}|{LETTER})[ ,].*)?[=≈]|[^=]*(?:[a-z]{{2}}\s*[:：]|{LETTER}\s*[:：]?)",
    re.DOTALL,
)
_OTHER = re.compile(  # what makes another number of it
    r"(?i)[第不没倍十百千最]|至少|超过|少于|分之|[\d\\^_{}<>≤≥|+*/±~$%&¢]|not\b|n['’]t\b|exceed"
    r"|divi[ds]|multipl|\b(?:least|most|or|up to|almost|nearly|over|under|above|within|between|no"
    r"|unlikely|hardly|doubt|never|twice|double|triple|squared?|powers?|wrong|incorrect"
    r"|a?(?:sin|cos|tan)h?|cot|csc|ln|log"
    r"|exp|sqrt|one|two|three|four|five|six|seven|eight|nine|ten|twenty|forty|fifty|hundred)\b"
)


def in_sentence(answer: str) -> str:
    """The mathematics or number in a sentence that has only one and does not change it: "He has 42
    apples left" gives "42". "at least 42" and all other answers stay as they are."""
    found = list(_MATH.finditer(answer)) if len(answer) < 300 else []  # longer is no sentence
    if len(found) != 1:
        return answer
    math, before, after = found[0], answer[: found[0].start()], answer[found[0].end() :]
    lead, money = before.rstrip("\\$ "), r"\$" * before.rstrip().endswith("$")
    words = f"{lead} {after}".replace("所以", "")
    changed = CHANGING.search(words) or _OTHER.search(words) or (math[4] and _AFTER.match(after))
    if changed or not _LEAD.fullmatch(lead):
        return answer
    return money + "".join(filter(None, math.groups())).strip()
