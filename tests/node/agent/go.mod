module countersign.dev/tests/node/agent

go 1.26.0
