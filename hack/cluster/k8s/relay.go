package main

import (
	"errors"
	"io"
	"net"
	"os"
)

// relay joins two network namespaces without a device between them. In: standard input, a listening TCP socket that was made in
// the other namespace (a socket stays in the namespace it was made in), and one argument, the address to dial from this one.
// Out: every accepted connection, carried both ways until both ends are closed.
func relay(args []string) error {
	if len(args) != 1 {
		return errors.New("one argument is wanted: HOST:PORT to dial")
	}
	listener, err := net.FileListener(os.Stdin)
	if err != nil {
		return err
	}
	for {
		in, err := listener.Accept()
		if err != nil {
			return err
		}
		go carry(in.(*net.TCPConn), args[0])
	}
}

func carry(in *net.TCPConn, address string) {
	defer in.Close()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return // the caller sees its connection closed, as with a server that is not up yet
	}
	out := conn.(*net.TCPConn)
	defer out.Close()
	done := make(chan struct{})
	go func() {
		pump(out, in)
		close(done)
	}()
	pump(in, out)
	<-done
}

// pump copies one direction and passes the end of it on.
func pump(to, from *net.TCPConn) {
	_, _ = io.Copy(to, from)
	_ = to.CloseWrite()
}
