module freehold.dev/hack/probe

go 1.26.0
