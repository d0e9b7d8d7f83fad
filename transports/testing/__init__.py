"""The contract that every transport keeps, as checks to run: `contract.run_contract(make_pair)`.

Plugin authors run it against their own transport; nothing here needs a test framework.
"""
