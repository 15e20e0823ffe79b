// An event source: go run source.go [OPTIONS] NAME HOST:PORT [HOST:PORT...] < EVENTS
//
// Standard input has one event a line, without its number: `B`, `P|32|56`. The first line gets number FIRST (1), the
// next one FIRST + 1, and so on. Every event is kept until the server has acknowledged it. After any failure the program
// connects again, to the next address, and goes on from the first number that is not acknowledged. Started again with
// the same input, it goes on there as well. It ends with exit status 0 when everything is acknowledged. Options:
//
//	-first N          number of the first line
//	-timeout SECONDS  connects again when something is unacknowledged and no answer came for so long (90); 0: never
//	-tls              speaks TLS, and trusts the authorities of the system
//	-ca FILE          speaks TLS, and trusts the authorities in this PEM file instead
//
// See docs/SPEC.md, section 9. It needs nothing but Go's standard library.
package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	keptMax       = 100_000 // events that are kept at once; standard input is not read above
	linesAtOnce   = 1000
	answerTimeout = 10 * time.Second // limit for connecting and for the first answer
	keepAlive     = 15 * time.Second // how often a quiet peer is asked whether it is there; the ninth miss ends it
)

var (
	first   = flag.Uint64("first", 1, "number of the first line")
	timeout = flag.Float64("timeout", 90, "seconds without an answer after which it connects again; 0: never")
	useTLS  = flag.Bool("tls", false, "speak TLS, and trust the authorities of the system")
	ca      = flag.String("ca", "", "speak TLS, and trust the authorities in this PEM file")
)

// source is what outlives a connection. `changed` wakes up who waits for more lines, for acknowledgements, or for the
// end of a connection.
type source struct {
	sync.Mutex
	changed      *sync.Cond
	kept         []string // lines from number `low` on
	low          uint64
	ended        bool // standard input has no more
	epoch        string
	acknowledged uint64 // every number below is dealt with
	sentBelow    uint64 // every number below has been sent in this connection
}

func (s *source) end() uint64 { return s.low + uint64(len(s.kept)) }

// forget drops what is acknowledged.
func (s *source) forget() {
	for len(s.kept) > 0 && s.low < s.acknowledged {
		s.kept = s.kept[1:]
		s.low++
	}
}

// watch limits the wait for the next answer while something that was sent is not acknowledged.
func (s *source) watch(conn net.Conn) {
	if s.sentBelow > s.low && *timeout > 0 {
		conn.SetReadDeadline(time.Now().Add(time.Duration(*timeout * float64(time.Second))))
	} else {
		conn.SetReadDeadline(time.Time{})
	}
}

// readInput numbers the lines of standard input.
func (s *source) readInput() {
	input := bufio.NewReader(os.Stdin)
	for {
		line, err := input.ReadString('\n')
		if err != nil && err != io.EOF {
			fatal(fmt.Errorf("standard input cannot be read: %w", err))
		}
		s.Lock()
		if line != "" {
			s.kept = append(s.kept, fmt.Sprintf("%d|%s\n", s.end(), strings.TrimRight(line, "\r\n")))
			s.forget()
		}
		s.ended = err != nil
		s.changed.Broadcast()
		for len(s.kept) >= keptMax {
			s.changed.Wait()
		}
		s.Unlock()
		if err != nil {
			return
		}
	}
}

// acknowledge takes a line of the server. Every answer is `+|EPOCH|N`.
func (s *source) acknowledge(line string, conn net.Conn) error {
	fields := strings.Split(strings.TrimRight(line, "\r\n"), "|")
	if len(fields) != 3 || fields[0] != "+" {
		return fmt.Errorf("unexpected answer %q", line)
	}
	number, err := strconv.ParseUint(fields[2], 10, 64)
	if err != nil {
		return err
	}
	s.Lock()
	defer s.Unlock()
	if (s.epoch != "" && s.epoch != fields[1]) || number < s.acknowledged {
		fatal(fmt.Errorf("the server has lost its past: epoch %s, number %d became epoch %s, number %d; "+
			"a person must decide what to send again", s.epoch, s.acknowledged, fields[1], number))
	}
	s.epoch, s.acknowledged = fields[1], number
	s.forget()
	s.watch(conn)
	s.changed.Broadcast()
	return nil
}

// readAnswers takes acknowledgements until the connection fails, and says why.
func (s *source) readAnswers(conn net.Conn, answers *bufio.Reader) error {
	for {
		line, err := answers.ReadString('\n')
		if err == io.EOF {
			return errors.New("the server has closed the connection")
		} else if err == nil {
			err = s.acknowledge(line, conn)
		}
		if err != nil {
			return err
		}
	}
}

// serve sends what is not acknowledged. It returns nil when everything is.
func (s *source) serve(conn net.Conn, name string) error {
	answers := bufio.NewReader(conn)
	if _, err := fmt.Fprintf(conn, "?|ack|%s\n", name); err != nil {
		return err
	}
	s.Lock()
	s.sentBelow = 0
	s.Unlock()
	conn.SetReadDeadline(time.Now().Add(answerTimeout))
	line, err := answers.ReadString('\n')
	if err != nil {
		return err
	}
	if err := s.acknowledge(line, conn); err != nil {
		return err
	}
	var failure error
	go func() {
		err := s.readAnswers(conn, answers)
		s.Lock()
		failure = err
		s.changed.Broadcast()
		s.Unlock()
		conn.Close() // ends a write that waits
	}()
	for {
		s.Lock()
		for failure == nil && s.sentBelow >= s.end() && !(s.ended && len(s.kept) == 0) {
			s.changed.Wait()
		}
		if s.ended && len(s.kept) == 0 {
			s.Unlock()
			return nil
		}
		if failure != nil {
			s.Unlock()
			return failure
		}
		if s.sentBelow < s.low {
			s.sentBelow = s.low
		}
		lines := s.kept[s.sentBelow-s.low:]
		if len(lines) > linesAtOnce {
			lines = lines[:linesAtOnce]
		}
		block := strings.Join(lines, "")
		wasOwed := s.sentBelow > s.low
		s.sentBelow += uint64(len(lines))
		if !wasOwed {
			s.watch(conn)
		}
		s.Unlock()
		if _, err := io.WriteString(conn, block); err != nil {
			conn.Close() // ends who reads
			s.Lock()
			defer s.Unlock()
			for failure == nil {
				s.changed.Wait()
			}
			if errors.Is(err, net.ErrClosed) {
				return failure // it has ended the connection
			}
			return err
		}
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

func fatal(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	flag.Parse()
	if flag.NArg() < 2 {
		fatal(errors.New("usage: source [OPTIONS] NAME HOST:PORT [HOST:PORT...] < EVENTS"))
	}
	dial := dialer()
	s := &source{low: *first}
	s.changed = sync.NewCond(s)
	go s.readInput()
	pause := 100 * time.Millisecond
	for attempt := 0; ; attempt++ {
		address := flag.Arg(1 + attempt%(flag.NArg()-1))
		s.Lock()
		before := s.acknowledged
		s.Unlock()
		conn, err := dial(address)
		if err == nil {
			err = s.serve(conn, flag.Arg(0))
			conn.Close()
			if err == nil {
				return
			}
		}
		fmt.Fprintf(os.Stderr, "%s: %v; trying again\n", address, err)
		s.Lock()
		if s.acknowledged > before {
			pause = 100 * time.Millisecond
		} else if pause *= 2; pause > 5*time.Second {
			pause = 5 * time.Second
		}
		s.Unlock()
		time.Sleep(time.Duration(float64(pause) * (0.5 + rand.Float64()/2)))
	}
}
