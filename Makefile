# What there is to do here; each target's logic is a script in hack/.
#   make demo   the whole story on this machine: cluster, chain, a trained model, the books
#   make test   all tests but the journey of devices, one summary line
# CLUSTER=existing REGISTRY=host/path uses the current kube context instead of a cluster of our own.
SHELL := /bin/bash
export CLUSTER REGISTRY CHAIN_HOST

CLUSTER ?= dev

.DEFAULT_GOAL := help

help: ## what each target does
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

up: ## tools, cluster, images, chain and contracts; safe to repeat
	@hack/up.sh

down: ## stop all of it; images and tools stay cached
	@hack/cluster.sh down

clean: ## stop all of it and forget the cluster's images too
	@hack/cluster.sh purge

status: ## what runs, and how to use it
	@hack/cluster.sh status

tools: ## only build and install the tools
	@hack/tools.sh all

images: ## build the images and give them to the cluster
	@hack/build.sh operator
	@hack/build.sh trainer
	@hack/images.sh all

chain: ## only the chain, with the contracts deployed
	@hack/chain.sh up
	@hack/chain.sh deploy

demo: ## the whole story on this machine; ends in a table
	@hack/demo.sh

test: ## all tests but the journey of devices, one summary line
	@hack/test.sh

journeys: ## the long journeys on the demo's cluster: devices, a signer that holds the key, a second cluster that dies, a blind hour
	@hack/journeys.sh

chaos: ## faults of some 45 kinds while tasks run (CHAOS_MINUTES, SEED); no money and no work may be lost
	@hack/chaos.sh

chaos-mutants: ## three defects that make chaos has to find, each by the sum that it breaks
	@hack/chaos-mutants.sh

scale: ## 1,000 tasks (SCALE_TASKS) through their whole lives: memory, writes, etcd and tasks a minute against limits
	@hack/scale.sh

fuzz: ## every parser of a stranger's bytes under libFuzzer (FUZZ_MINUTES each, SEED); a table, out/fuzz.json
	@hack/fuzz.sh

court: ## a million elements (CASES, SEED) between contract, interpreter and libtorch; a table with the gas
	@hack/court.sh

generate: ## CRDs and RBAC from their sources (contracts/check-abi.sh write makes the ABI)
	@hack/generate.sh

gas: ## gas of each call, from receipts
	@contracts/gas.sh

invariants: ## a million random calls on the contracts, a table of what they did (SEED=n repeats them)
	@contracts/invariants.sh

coverage: ## lines and branches of the contracts that their tests reach
	@contracts/coverage.sh

analyse: ## Slither and halmos on the contracts
	@contracts/analyse.sh

bench: ## speed and memory as ratios, in tables
	@hack/bench/run.sh

bench-bits: ## exact training gives one root on every machine that there is here (STEPS, SEED); any difference fails; out/bench-bits.json
	@python3 hack/bench/bits.py

bench-exact: ## what exact training costs: accuracy (SEEDS, STEPS percent), speed, replay, hashing (PARTS); out/bench-exact.json
	@python3 hack/bench/exact.py

lint: ## format and lints of all languages
	@hack/lint.sh

.PHONY: help up down clean status tools images chain demo test journeys chaos chaos-mutants scale fuzz court generate gas invariants coverage analyse bench bench-bits bench-exact lint
