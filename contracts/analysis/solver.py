"""Answers one SMT-LIB file with cvc5, for halmos. Words of 256 bits are taken as integers: divisions by constants, which
every amount of a lease has, are then a matter of milliseconds, where bits are hopeless. Usage: solver.py FILE"""

import sys

import cvc5

solver = cvc5.Solver()
solver.setOption("solve-bv-as-int", "sum")
solver.setOption("produce-models", "true")
parser = cvc5.InputParser(solver)
parser.setFileInput(cvc5.InputLanguage.SMT_LIB_2_6, sys.argv[1])
symbols = parser.getSymbolManager()
while not (command := parser.nextCommand()).isNull():
    sys.stdout.write(command.invoke(solver, symbols))
    sys.stdout.flush()
