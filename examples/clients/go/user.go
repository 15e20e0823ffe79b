// A user: go run user.go [OPTIONS] ID HOST:PORT [HOST:PORT...]
//
// Writes the user's events to standard output, each exactly once. After any failure it connects again, to the next
// address, and goes on behind the last whole event. Options:
//
//	-plain            logs in with the id alone: events from now on, and what comes while it is away is missed
//	-state FILE       keeps the place in FILE, so that the next start goes on there
//	-from WHERE       without a place: `now` (default), or `oldest`, which is everything that is kept
//	-continue         when the server no longer has what is missing: say so and go on, instead of ending with status 1
//	-timeout SECONDS  connects again when nothing came for so long (90); above `userMarkMs` of the server; 0: never
//	-tls              speaks TLS, and trusts the authorities of the system
//	-ca FILE          speaks TLS, and trusts the authorities in this PEM file instead
//	-token TOKEN      JSON Web Token, where the server asks for one
//
// See docs/SPEC.md, section 10. It needs nothing but Go's standard library.
package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/big"
	"math/rand"
	"net"
	"os"
	"regexp"
	"strings"
	"time"
)

const (
	answerTimeout = 10 * time.Second // limit for connecting and for the answer to the login
	keepAlive     = 15 * time.Second // how often a quiet peer is asked whether it is there; the ninth miss ends it
)

var (
	plain   = flag.Bool("plain", false, "log in with the id alone")
	state   = flag.String("state", "", "file that keeps the place")
	from    = flag.String("from", "now", "where to begin without a place: now or oldest")
	goOn    = flag.Bool("continue", false, "go on when the server no longer has what is missing")
	timeout = flag.Float64("timeout", 90, "seconds without a line after which it connects again; 0: never")
	useTLS  = flag.Bool("tls", false, "speak TLS, and trust the authorities of the system")
	ca      = flag.String("ca", "", "speak TLS, and trust the authorities in this PEM file")
	token   = flag.String("token", "", "JSON Web Token, where the server asks for one")
	output  = bufio.NewWriter(os.Stdout)
	stored  = regexp.MustCompile(`^([0-9]+) ([^\s|]+)\n?$`)
)

// place is the next number that is wanted, and the epoch that it belongs to. Numbers go up to 2^64.
type place struct {
	next  *big.Int
	epoch string
}

func (p place) String() string { return fmt.Sprintf("number %s of epoch %s", p.next, p.epoch) }

// load reads the state file. Only a file that is not there means that there is no place. What else fails must not be
// taken for that.
func load() (place, error) {
	p := place{next: new(big.Int)}
	text, err := os.ReadFile(*state)
	if *state == "" || os.IsNotExist(err) {
		return p, nil
	} else if err != nil {
		return p, fmt.Errorf("the state file cannot be read: %w", err)
	}
	fields := stored.FindStringSubmatch(string(text))
	if fields == nil {
		return p, fmt.Errorf("the state file %s is damaged: it does not hold a number and an epoch", *state)
	}
	p.next.SetString(fields[1], 10)
	p.epoch = fields[2]
	return p, nil
}

// start is the answer to a login, a mark, or a new run. A mark may lie below what has come: it names durable places.
func (p *place) start(number *big.Int, epoch string) {
	if epoch != p.epoch || number.Cmp(p.next) > 0 {
		p.next = number
	}
	p.epoch = epoch
}

// save writes out what has come, and then the place behind it.
func (p *place) save() error {
	if err := output.Flush(); err != nil || *state == "" || p.epoch == "" {
		return err
	}
	text := fmt.Sprintf("%s %s\n", p.next, p.epoch)
	if err := os.WriteFile(*state+".new", []byte(text), 0o644); err != nil {
		return err
	}
	return os.Rename(*state+".new", *state)
}

func (p *place) login(id string) string {
	line := id + "|" + *from
	if *plain {
		line = id
	} else if p.epoch != "" {
		line = fmt.Sprintf("%s|%s|%s", id, p.next, p.epoch)
	}
	if *token != "" {
		line += "|" + *token
	}
	return line + "\n"
}

// serve reads events until the connection ends.
func (p *place) serve(conn net.Conn, id string) error {
	if _, err := io.WriteString(conn, p.login(id)); err != nil {
		return err
	}
	limit := answerTimeout
	if *plain { // a plain login is not answered, and sent no marks
		limit = 0
	}
	input := bufio.NewReaderSize(conn, 1<<16)
	for {
		conn.SetReadDeadline(deadline(limit))
		line, err := input.ReadString('\n')
		if err == io.EOF {
			// Half a line is dropped with the connection, and sent again whole.
			return errors.New("the server has closed the connection")
		} else if err != nil {
			return err
		}
		switch line[0] {
		case '+':
			epoch, number, _, err := answer(line)
			if err != nil {
				return err
			}
			p.start(number, epoch)
			limit = time.Duration(*timeout * float64(time.Second))
		case '-':
			return p.refused(line)
		default:
			number, ok := new(big.Int).SetString(strings.SplitN(line, "|", 2)[0], 10)
			if !ok {
				return fmt.Errorf("not an event: %q", line)
			}
			p.next = number.Add(number, big.NewInt(1))
			output.WriteString(line)
		}
		if rest, _ := input.Peek(input.Buffered()); bytes.IndexByte(rest, '\n') < 0 {
			fatal(p.save()) // before waiting for more
		}
	}
}

// deadline is so far from now. 0: never.
func deadline(limit time.Duration) time.Time {
	if limit <= 0 {
		return time.Time{}
	}
	return time.Now().Add(limit)
}

// answer takes `+|EPOCH|NUMBER` or `-|EPOCH|NUMBER|REASON` apart.
func answer(line string) (epoch string, number *big.Int, reason string, err error) {
	fields := append(strings.Split(strings.TrimRight(line, "\r\n"), "|"), "")
	if len(fields) >= 4 {
		var ok bool
		if number, ok = new(big.Int).SetString(fields[2], 10); ok {
			return fields[1], number, fields[3], nil
		}
	}
	return "", nil, "", fmt.Errorf("unexpected answer %q", line)
}

// refused takes `-|EPOCH|NUMBER|REASON`: the server ends this connection. `gone` and `epoch` refuse a login.
func (p *place) refused(line string) error {
	epoch, number, reason, err := answer(line)
	if err != nil {
		return err
	}
	fatal(p.save())
	switch reason {
	case "gone", "epoch":
		offer := place{number, epoch}
		if !*goOn {
			fatal(fmt.Errorf("the server cannot go on at %s; it offers %s (%s)", p, offer, reason))
		}
		fmt.Fprintf(os.Stderr, "Going on at %s instead of %s (%s).\n", offer, p, reason)
		*p = offer
	case "replaced", "token_expired":
		// Another client has this id, and to come back would start a fight. Or the token is over.
		fatal(fmt.Errorf("the server has ended this connection for good: %s", reason))
	}
	return fmt.Errorf("the server has ended the connection: %s", reason)
}

func fatal(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// dialer gives the way to connect: in clear, or by TLS.
func dialer() func(address string) (net.Conn, error) {
	tcp := &net.Dialer{Timeout: answerTimeout, KeepAlive: keepAlive}
	if !*useTLS && *ca == "" {
		return func(address string) (net.Conn, error) { return tcp.Dial("tcp", address) }
	}
	config := &tls.Config{}
	if *ca != "" {
		pem, err := os.ReadFile(*ca)
		fatal(err)
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			fatal(fmt.Errorf("-ca %s: no certificate in it", *ca))
		}
	}
	return func(address string) (net.Conn, error) {
		conn, err := tls.DialWithDialer(tcp, "tcp", address, config)
		if err != nil {
			return nil, err
		}
		return conn, nil
	}
}

func main() {
	flag.Parse()
	if flag.NArg() < 2 {
		fatal(errors.New("usage: user [OPTIONS] ID HOST:PORT [HOST:PORT...]"))
	}
	p, err := load()
	fatal(err)
	dial := dialer()
	pause := 100 * time.Millisecond
	for attempt := 0; ; attempt++ {
		address := flag.Arg(1 + attempt%(flag.NArg()-1))
		before := p.String()
		conn, err := dial(address)
		if err == nil {
			err = p.serve(conn, flag.Arg(0))
			conn.Close()
			fatal(p.save())
		}
		fmt.Fprintf(os.Stderr, "%s: %v; trying again\n", address, err)
		if p.String() != before {
			pause = 100 * time.Millisecond
		} else if pause *= 2; pause > 5*time.Second {
			pause = 5 * time.Second
		}
		time.Sleep(time.Duration(float64(pause) * (0.5 + rand.Float64()/2)))
	}
}
