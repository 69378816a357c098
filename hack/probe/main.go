// probe tells what can be reached from where it runs: a server of TCP ports, and a client that tries a list of
// targets over and over from its first instruction on. It runs in pods that test the cluster's walls.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	patience = 4 * time.Second        // how long a probe goes on with a target that does not answer
	attempt  = 700 * time.Millisecond // how long one attempt may take
)

func main() {
	switch {
	case len(os.Args) > 2 && os.Args[1] == "serve":
		if err := serve(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	case len(os.Args) > 2 && os.Args[1] == "try":
		try(os.Args[2:])
	default:
		fmt.Fprintln(os.Stderr, "usage: probe serve PORT… | probe try tcp=HOST:PORT… dns=NAME…")
		os.Exit(64)
	}
}

// serve answers each connection with the caller's address, and says once under which addresses.
func serve(ports []string) error {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return err
	}
	for _, address := range addresses {
		fmt.Println("address", address)
	}
	failed := make(chan error)
	for _, port := range ports {
		listener, err := net.Listen("tcp", ":"+port)
		if err != nil {
			return err
		}
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					failed <- err
					return
				}
				fmt.Fprintln(conn, conn.RemoteAddr())
				conn.Close()
			}
		}()
	}
	return <-failed
}

// try attempts all targets at once and prints a line each: "open" and after how long, or "shut".
func try(targets []string) {
	start := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	lines := make([]string, len(targets))
	var group sync.WaitGroup
	for i, target := range targets {
		group.Go(func() {
			lines[i] = target + " shut"
			for ctx.Err() == nil {
				if reach(ctx, target) {
					lines[i] = fmt.Sprintf("%s open %d ms", target, time.Since(start).Milliseconds())
					return
				}
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
	group.Wait()
	fmt.Println(strings.Join(lines, "\n"))
}

// reach is one attempt. A refused connection counts: the packet came through, and so did the answer.
func reach(ctx context.Context, target string) bool {
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	kind, address, _ := strings.Cut(target, "=")
	if kind == "dns" {
		_, err := net.DefaultResolver.LookupHost(ctx, address)
		return err == nil
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, kind, address)
	if err == nil {
		conn.Close()
	}
	return err == nil || errors.Is(err, syscall.ECONNREFUSED)
}
