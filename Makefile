# Mica. Two targets are all a newcomer needs: 'make demo' and 'make test'.
# Both install what is missing (Debian 12, Go and git present, root or sudo).

export CGO_ENABLED := 0
GO ?= go

.PHONY: build demo demo-stop test check lint race bench clean setup-demo setup-test assets test-machine vbox-root test-vbox

build: ## bin/mica and bin/mica-guest
	@mkdir -p bin
	@$(GO) build -trimpath -ldflags='-s -w' -o bin/ ./cmd/mica
	@GO=$(GO) scripts/build-guest.sh bin/mica-guest

demo: setup-demo build ## build an image, publish a small OS, boot a machine, log in
	@scripts/demo.sh

demo-stop: ## remove the demo's machine and stop its server
	@scripts/demo.sh stop

test: setup-test build ## every test but the long ones of test-vbox
	@test/run.sh

test-machine: setup-test build ## drivers on the real QEMU, libvirt and VirtualBox, cernvm-launch, the demo's image on two of them
	@$(GO) test ./internal/machine/... ./internal/launch/...
	@MICA_TIERS="drivers virtualbox vm" MICA_STORIES='TestFirstLight|TestLibvirt' test/run.sh

check: lint race ## what a change must pass besides 'make test'

lint: ## golangci-lint, built from the pinned source on first use (minutes)
	@cd tools && $(GO) build -o ../bin/ github.com/golangci/golangci-lint/v2/cmd/golangci-lint mvdan.cc/gofumpt
	@test -z "$$(bin/gofumpt -l . | tee /dev/stderr)"
	@bin/golangci-lint run ./...

race: ## the short tests under the race detector; needs a C compiler
	@CGO_ENABLED=1 $(GO) test -short -race ./...

vbox-root: ## a root directory with VirtualBox for the tests: 140 MB to fetch, 340 MB, a minute or two; needs root
	@scripts/vbox-root.sh

test-vbox: vbox-root ## VirtualBox's driver at length against the real program, without its kernel module; needs root
	@MICA_TEST=$${MICA_TEST:-vbox} MICA_VBOX_ROOT="$${XDG_CACHE_HOME:-$$HOME/.cache}/mica/vbox-root" $(GO) test -count=1 -v -timeout 60m -run TestReal ./internal/machine/drivers/virtualbox

bench: setup-test build ## figures and ratios, see bench/README.md
	@bench/run.sh

setup-demo:
	@scripts/setup.sh demo

setup-test:
	@scripts/setup.sh test

clean: ## remove everything that was built; run 'make demo-stop' first
	@rm -rf bin build
