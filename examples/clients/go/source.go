// An event source: go run source.go [-first N] NAME HOST:PORT [HOST:PORT...] < EVENTS
//
// Standard input has one event a line, without its number: `B`, `P|32|56`. The first line gets number FIRST (1), the
// next one FIRST + 1, and so on. Every event is kept until the server has acknowledged it. After any failure the program
// connects again, to the next address, and goes on from the first number that is not acknowledged. Started again with
// the same input, it goes on there as well. It ends with exit status 0 when everything is acknowledged.
//
// See docs/SPEC.md, section 9. It needs nothing but Go's standard library.
package main

import (
	"bufio"
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
}

func (s *source) end() uint64 { return s.low + uint64(len(s.kept)) }

// forget drops what is acknowledged.
func (s *source) forget() {
	for len(s.kept) > 0 && s.low < s.acknowledged {
		s.kept = s.kept[1:]
		s.low++
	}
}

// readInput numbers the lines of standard input.
func (s *source) readInput() {
	input := bufio.NewReader(os.Stdin)
	for {
		line, err := input.ReadString('\n')
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
func (s *source) acknowledge(line string) error {
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
		fmt.Fprintf(os.Stderr, "The server has lost its past: epoch %s, number %d became epoch %s, number %d. "+
			"A person must decide what to send again.\n", s.epoch, s.acknowledged, fields[1], number)
		os.Exit(1)
	}
	s.epoch, s.acknowledged = fields[1], number
	s.forget()
	s.changed.Broadcast()
	return nil
}

// serve sends what is not acknowledged. It returns nil when everything is.
func (s *source) serve(conn net.Conn, name string) error {
	answers := bufio.NewReader(conn)
	if _, err := fmt.Fprintf(conn, "?|ack|%s\n", name); err != nil {
		return err
	}
	conn.SetReadDeadline(time.Now().Add(answerTimeout))
	line, err := answers.ReadString('\n')
	if err != nil {
		return err
	}
	conn.SetReadDeadline(time.Time{})
	if err := s.acknowledge(line); err != nil {
		return err
	}
	var failure error
	go func() {
		for {
			line, err := answers.ReadString('\n')
			if err == nil {
				err = s.acknowledge(line)
			} else if err == io.EOF {
				err = errors.New("the server has closed the connection")
			}
			if err != nil {
				s.Lock()
				failure = err
				s.changed.Broadcast()
				s.Unlock()
				return
			}
		}
	}()
	next := uint64(0) // the next number to send
	for {
		s.Lock()
		for failure == nil && next >= s.end() && !(s.ended && len(s.kept) == 0) {
			s.changed.Wait()
		}
		if failure != nil || len(s.kept) == 0 && s.ended {
			s.Unlock()
			return failure
		}
		if next < s.low {
			next = s.low
		}
		lines := s.kept[next-s.low:]
		if len(lines) > linesAtOnce {
			lines = lines[:linesAtOnce]
		}
		block := strings.Join(lines, "")
		next += uint64(len(lines))
		s.Unlock()
		if _, err := io.WriteString(conn, block); err != nil {
			return err
		}
	}
}

func main() {
	first := flag.Uint64("first", 1, "number of the first event")
	flag.Parse()
	if flag.NArg() < 2 {
		fmt.Fprintln(os.Stderr, "usage: source [-first N] NAME HOST:PORT [HOST:PORT...] < EVENTS")
		os.Exit(1)
	}
	s := &source{low: *first}
	s.changed = sync.NewCond(s)
	go s.readInput()
	pause := 100 * time.Millisecond
	for attempt := 0; ; attempt++ {
		address := flag.Arg(1 + attempt%(flag.NArg()-1))
		s.Lock()
		before := s.acknowledged
		s.Unlock()
		conn, err := net.DialTimeout("tcp", address, answerTimeout)
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
