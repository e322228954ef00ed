package ckpt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/big"
)

// Bounds of a pickle: real ones of this kind hold some thousand operations. Every operation costs a few dozen bytes.
const (
	maxPickle     = 16 << 20 // bytes
	maxOperations = 1 << 18
)

// What a pickle can hold here, beside nil, bool, int, *big.Int, float64, string and []byte.
type (
	tuple  []any
	list   struct{ items []any }
	dict   struct{ keys, values []any } // in the file's order
	global string                       // a name that a reduction calls
	opaque struct{}                     // a value that is passed over: a device, a size
	marker struct{}
)

// storage is the memory that tensors share. Its bytes may come after the pickle.
type storage struct {
	dtype DType
	key   string
	numel int
	data  []byte
}

// view is a tensor: a part of a storage.
type view struct {
	storage *storage
	offset  int
	size    []int
	stride  []int
}

// storageTypes names the element type of every storage class.
var storageTypes = map[global]DType{
	"torch FloatStorage": F32, "torch DoubleStorage": F64, "torch HalfStorage": F16, "torch BFloat16Storage": BF16,
	"torch LongStorage": I64, "torch IntStorage": I32, "torch ShortStorage": "I16", "torch CharStorage": "I8",
	"torch ByteStorage": U8, "torch BoolStorage": Bool,
}

// unpickler runs the few operations that a dictionary of tensors needs. It calls nothing: a name is either one of those
// that rebuild tensors, which are done here, or an error.
type unpickler struct {
	text     []byte
	at       int
	done     int // operations
	stack    []any
	memo     map[int]any
	storages map[string]*storage
}

// unpickle reads one pickle from the start of text and returns its value and its length.
func unpickle(text []byte, storages map[string]*storage) (value any, n int, err error) {
	u := &unpickler{text: text, memo: map[int]any{}, storages: storages}
	for {
		stop, err := u.step()
		if err != nil {
			return nil, u.at, fmt.Errorf("pickle at byte %d: %w", u.at, err)
		}
		if !stop {
			continue
		}
		if len(u.stack) != 1 {
			return nil, u.at, fmt.Errorf("pickle ends with %d values, want 1", len(u.stack))
		}
		return u.stack[0], u.at, nil
	}
}

var (
	errPickleCut   = errors.New("pickle is cut")
	errPickleStack = errors.New("value of another kind where an operation needs one")
)

// take returns the next n bytes. Lengths that a file declares are checked here before anything is made of them.
func (u *unpickler) take(n uint64) ([]byte, error) {
	if n > uint64(len(u.text)-u.at) || uint64(u.at)+n > maxPickle {
		return nil, errPickleCut
	}
	b := u.text[u.at : u.at+int(n)]
	u.at += int(n)
	return b, nil
}

func (u *unpickler) line() (string, error) {
	for i := u.at; i < len(u.text) && i < u.at+512; i++ {
		if u.text[i] == '\n' {
			s := string(u.text[u.at:i])
			u.at = i + 1
			return s, nil
		}
	}
	return "", errPickleCut
}

func (u *unpickler) push(v any) { u.stack = append(u.stack, v) }

func (u *unpickler) pop() (any, error) {
	if len(u.stack) == 0 {
		return nil, errPickleStack
	}
	v := u.stack[len(u.stack)-1]
	u.stack = u.stack[:len(u.stack)-1]
	if _, ok := v.(marker); ok {
		return nil, errPickleStack
	}
	return v, nil
}

// popMark returns what lies above the last mark and takes both away.
func (u *unpickler) popMark() (tuple, error) {
	for i := len(u.stack) - 1; i >= 0; i-- {
		if _, ok := u.stack[i].(marker); ok {
			items := append(tuple(nil), u.stack[i+1:]...)
			u.stack = u.stack[:i]
			return items, nil
		}
	}
	return nil, errPickleStack
}

// number is an unsigned little-endian integer of n bytes.
func (u *unpickler) number(n int) (uint64, error) {
	b, err := u.take(uint64(n))
	if err != nil {
		return 0, err
	}
	var wide [8]byte
	copy(wide[:], b)
	return binary.LittleEndian.Uint64(wide[:]), nil
}

// step does one operation.
func (u *unpickler) step() (stop bool, err error) {
	if u.done++; u.done > maxOperations {
		return false, fmt.Errorf("more than %d operations", maxOperations)
	}
	b, err := u.take(1)
	if err != nil {
		return false, err
	}
	switch op := b[0]; op {
	case '.':
		return true, nil
	case 0x80: // protocol
		_, err = u.take(1)
	case 0x95: // frame
		_, err = u.number(8)
	case '(':
		u.push(marker{})
	case 'N':
		u.push(nil)
	case 0x88, 0x89:
		u.push(op == 0x88)
	case 'K', 'M', 'J', 'G', 0x8a:
		return false, u.pushNumber(op)
	case 'X', 0x8c, 0x8d, 'U', 'T', 'B', 'C', 0x8e:
		return false, u.pushText(op)
	case '}':
		u.push(&dict{})
	case ']':
		u.push(&list{})
	case ')':
		u.push(tuple{})
	case 't', 0x85, 0x86, 0x87:
		return false, u.pushTuple(op)
	case 'q', 'r', 'h', 'j', 0x94:
		return false, u.remember(op)
	case 'c', 0x93:
		return false, u.pushGlobal(op)
	case 's', 'u', 'a', 'e':
		return false, u.fill(op)
	case 'R':
		return false, u.reduce()
	case 'b':
		return false, u.build()
	case 'Q':
		return false, u.persistent()
	case '0':
		_, err = u.pop()
	default:
		return false, fmt.Errorf("operation %#02x is not known", op)
	}
	return false, err
}

func (u *unpickler) pushNumber(op byte) error {
	switch op {
	case 'K', 'M':
		v, err := u.number(map[byte]int{'K': 1, 'M': 2}[op])
		u.push(int(v))
		return err
	case 'J':
		v, err := u.number(4)
		u.push(int(int32(v)))
		return err
	case 'G':
		b, err := u.take(8)
		if err == nil {
			u.push(math.Float64frombits(binary.BigEndian.Uint64(b)))
		}
		return err
	}
	n, err := u.number(1)
	if err != nil {
		return err
	}
	b, err := u.take(n)
	if err != nil {
		return err
	}
	v := new(big.Int) // two's complement, little-endian
	for i := len(b) - 1; i >= 0; i-- {
		v.Lsh(v, 8).Or(v, big.NewInt(int64(b[i])))
	}
	if len(b) > 0 && b[len(b)-1] >= 0x80 {
		v.Sub(v, new(big.Int).Lsh(big.NewInt(1), uint(8*len(b))))
	}
	if v.IsInt64() && int64(int(v.Int64())) == v.Int64() {
		u.push(int(v.Int64()))
	} else {
		u.push(v)
	}
	return nil
}

func (u *unpickler) pushText(op byte) error {
	width := map[byte]int{'X': 4, 0x8c: 1, 0x8d: 8, 'U': 1, 'T': 4, 'B': 4, 'C': 1, 0x8e: 8}[op]
	n, err := u.number(width)
	if err != nil {
		return err
	}
	b, err := u.take(n)
	if err != nil {
		return err
	}
	if op == 'B' || op == 'C' || op == 0x8e {
		u.push(b)
	} else {
		u.push(string(b))
	}
	return nil
}

func (u *unpickler) pushTuple(op byte) error {
	if op == 't' {
		items, err := u.popMark()
		u.push(items)
		return err
	}
	items := make(tuple, int(op-0x84))
	for i := len(items) - 1; i >= 0; i-- {
		v, err := u.pop()
		if err != nil {
			return err
		}
		items[i] = v
	}
	u.push(items)
	return nil
}

func (u *unpickler) remember(op byte) error {
	if op == 0x94 {
		if len(u.stack) == 0 {
			return errPickleStack
		}
		u.memo[len(u.memo)] = u.stack[len(u.stack)-1]
		return nil
	}
	n, err := u.number(map[byte]int{'q': 1, 'r': 4, 'h': 1, 'j': 4}[op])
	if err != nil {
		return err
	}
	if op == 'q' || op == 'r' {
		if len(u.stack) == 0 {
			return errPickleStack
		}
		u.memo[int(n)] = u.stack[len(u.stack)-1]
		return nil
	}
	v, ok := u.memo[int(n)]
	if !ok {
		return fmt.Errorf("nothing was remembered as %d", n)
	}
	u.push(v)
	return nil
}

func (u *unpickler) pushGlobal(op byte) error {
	if op == 0x93 {
		name, err := u.pop()
		if err != nil {
			return err
		}
		module, err := u.pop()
		if err != nil {
			return err
		}
		m, ok1 := module.(string)
		n, ok2 := name.(string)
		if !ok1 || !ok2 {
			return errPickleStack
		}
		return u.allow(m, n)
	}
	module, err := u.line()
	if err != nil {
		return err
	}
	name, err := u.line()
	if err != nil {
		return err
	}
	return u.allow(module, name)
}

// fill puts values into the dict or list below them.
func (u *unpickler) fill(op byte) error {
	var items tuple
	var err error
	switch op {
	case 'u', 'e':
		items, err = u.popMark()
	case 's':
		items = make(tuple, 2)
		if items[1], err = u.pop(); err == nil {
			items[0], err = u.pop()
		}
	case 'a':
		items = make(tuple, 1)
		items[0], err = u.pop()
	}
	if err != nil {
		return err
	}
	if len(u.stack) == 0 {
		return errPickleStack
	}
	switch to := u.stack[len(u.stack)-1].(type) {
	case *dict:
		if op == 'a' || op == 'e' || len(items)%2 != 0 {
			return errPickleStack
		}
		for i := 0; i < len(items); i += 2 {
			to.keys, to.values = append(to.keys, items[i]), append(to.values, items[i+1])
		}
	case *list:
		if op == 's' || op == 'u' {
			return errPickleStack
		}
		to.items = append(to.items, items...)
	default:
		return errPickleStack
	}
	return nil
}
