// Command mica makes, describes, keeps and runs micro virtual appliances.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/micavm/mica/internal/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	go func() {
		<-ctx.Done()
		stop() // a second signal ends the process at once
	}()
	code := cli.Main(ctx, cli.IO{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Env: os.Getenv}, os.Args)
	stop()
	os.Exit(code)
}
