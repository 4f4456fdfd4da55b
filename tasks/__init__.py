"""The tasks. Each is one module, and to add one is to write the module and one line in TASKS:

    LEVELS                            of difficulty, 1 to 3: the numbers that it draws from
    problem(rng, level, easy=False)   a random Problem, in English or Chinese
    content(problem)                  a text that names the problem without language and wording:
                                      equal texts are the same problem, and decide the test split
    reasoned(rng, problem, cfg)       (thought, answer) of somebody who works it out
    guess(rng, problem, cfg, wrong)   (thought, answer) of somebody who guesses
    judge(problems, answers)          which answers, as texts, are right: list[bool]; base.by_value
                                      compares values, base.by_number numbers that are worked out,
                                      base.by_text what is written
    opening(problem)                  if you like: the words with which those who reason begin

rng is a random.Random, the only source of chance; cfg is data.WorldConfig. content begins with the
task's name, judge takes any text, and a guess that is not `wrong` gives the problem's answer. Then
--world.tasks and --grpo.tasks know the task: its texts are in the corpus, its problems train and
evaluate models. The default world and R1's stages keep to the tasks of REASONING and "general".
"""

from tasks import arithmetic, code, countdown, general, logic

TASKS = {
    "arithmetic": arithmetic,
    "countdown": countdown,
    "code": code,
    "logic": logic,
    "general": general,
}
REASONING = ("arithmetic", "countdown", "code", "logic")  # what R1's stages are trained on
