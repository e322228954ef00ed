package ckpt

import (
	"fmt"
	"math/bits"
	"strings"
)

// allowed are the names that a pickle of tensors may call; storage classes and element types are names too, never called.
var allowed = map[global]bool{
	"collections OrderedDict": true, "torch._utils _rebuild_tensor_v2": true, "torch._utils _rebuild_parameter": true,
	"torch Size": true, "torch device": true,
}

// allow pushes a name, or refuses it: everything else could be code.
func (u *unpickler) allow(module, name string) error {
	g := global(module + " " + name)
	if strings.HasPrefix(module, "__torch__") {
		return fmt.Errorf("holds a program (TorchScript: %.80s.%.80s), not only tensors", module, name)
	}
	if !allowed[g] && storageTypes[g] == "" {
		return fmt.Errorf("name %.80q of module %.80q is not allowed: only tensors are rebuilt", name, module)
	}
	u.push(g)
	return nil
}

// reduce does what the name below the arguments stands for.
func (u *unpickler) reduce() error {
	top, err := u.pop()
	if err != nil {
		return err
	}
	callee, err := u.pop()
	if err != nil {
		return err
	}
	args, ok := top.(tuple)
	name, ok2 := callee.(global)
	if !ok || !ok2 || !allowed[name] {
		return errPickleStack
	}
	switch name {
	case "collections OrderedDict":
		d := &dict{}
		if len(args) == 1 { // a list of pairs
			l, ok := args[0].(*list)
			if !ok {
				return errPickleStack
			}
			for _, item := range l.items {
				kv, ok := item.(tuple)
				if !ok || len(kv) != 2 {
					return errPickleStack
				}
				d.keys, d.values = append(d.keys, kv[0]), append(d.values, kv[1])
			}
		}
		u.push(d)
	case "torch._utils _rebuild_parameter":
		if len(args) < 1 {
			return errPickleStack
		}
		u.push(args[0])
	case "torch._utils _rebuild_tensor_v2":
		v, err := rebuild(args)
		if err != nil {
			return err
		}
		u.push(v)
	default:
		u.push(opaque{})
	}
	return nil
}

// build takes the attributes of an object away: an ordered dictionary has some that nobody needs.
func (u *unpickler) build() error {
	if _, err := u.pop(); err != nil {
		return err
	}
	if len(u.stack) == 0 {
		return errPickleStack
	}
	if _, ok := u.stack[len(u.stack)-1].(*dict); !ok {
		return errPickleStack
	}
	return nil
}

// persistent turns ("storage", class, key, device, numel) into a storage; a key that was seen is the same storage.
func (u *unpickler) persistent() error {
	top, err := u.pop()
	if err != nil {
		return err
	}
	id, ok := top.(tuple)
	if !ok || len(id) < 5 || id[0] != "storage" {
		return fmt.Errorf("persistent id is no storage")
	}
	class, ok1 := id[1].(global)
	key, ok2 := id[2].(string)
	numel, ok3 := id[4].(int)
	d := storageTypes[class]
	if !ok1 || !ok2 || !ok3 || d == "" || numel < 0 || numel > 1<<48 {
		return fmt.Errorf("storage %.40q of class %.40q is not known", id[2], class)
	}
	if len(id) > 5 && id[5] != nil {
		return fmt.Errorf("storage %.40q is a view of another one", key)
	}
	s, ok := u.storages[key]
	if !ok {
		s = &storage{dtype: d, key: key, numel: numel}
		u.storages[key] = s
	}
	if s.dtype != d || s.numel != numel {
		return fmt.Errorf("storage %.40q is %d of %s and %d of %s", key, s.numel, s.dtype, numel, d)
	}
	u.push(s)
	return nil
}

// rebuild makes a tensor of (storage, offset, size, stride, ...) that lies within its storage.
func rebuild(args tuple) (*view, error) {
	if len(args) < 4 {
		return nil, errPickleStack
	}
	s, ok := args[0].(*storage)
	offset, ok2 := args[1].(int)
	size, err := whole(args[2])
	if err != nil {
		return nil, err
	}
	stride, err := whole(args[3])
	if err != nil {
		return nil, err
	}
	if !ok || !ok2 || offset < 0 || len(size) != len(stride) {
		return nil, errPickleStack
	}
	v := &view{s, offset, size, stride}
	numel, last := uint64(1), uint64(offset)
	for i, n := range size {
		hi, lo := bits.Mul64(numel, uint64(n))
		reach, far := bits.Mul64(uint64(max(n-1, 0)), uint64(stride[i]))
		if hi != 0 || reach != 0 || far > 1<<62 || last+far > 1<<62 {
			return nil, fmt.Errorf("tensor of size %v, stride %v overflows", size, stride)
		}
		numel, last = lo, last+far
	}
	if numel > 0 && last >= uint64(s.numel) || numel > uint64(s.numel) {
		return nil, fmt.Errorf("tensor of size %v, stride %v from %d on reaches beyond its storage of %d", size, stride, offset, s.numel)
	}
	return v, nil
}

// whole reads a tuple of numbers from 0 on.
func whole(v any) ([]int, error) {
	t, ok := v.(tuple)
	if !ok || len(t) > maxRank {
		return nil, errPickleStack
	}
	out := make([]int, len(t))
	for i := range t {
		n, ok := t[i].(int)
		if !ok || n < 0 {
			return nil, errPickleStack
		}
		out[i] = n
	}
	return out, nil
}

// numel is the number of elements.
func (v *view) numel() int { return Info{Shape: v.size}.Size() }

// bytes are the tensor's elements, row by row: a part of the storage where they lie like that, else a copy.
func (v *view) bytes() []byte {
	elem, n := v.storage.dtype.Bits()/8, v.numel()
	if n == 0 {
		return nil
	}
	row, dense := 1, true
	for i := len(v.size) - 1; i >= 0; i-- {
		dense = dense && (v.size[i] == 1 || v.stride[i] == row)
		row *= v.size[i]
	}
	if dense {
		return v.storage.data[v.offset*elem : (v.offset+n)*elem]
	}
	out := make([]byte, 0, n*elem)
	index := make([]int, len(v.size))
	for range n {
		at := v.offset
		for i, k := range index {
			at += k * v.stride[i]
		}
		out = append(out, v.storage.data[at*elem:(at+1)*elem]...)
		for i := len(index) - 1; i >= 0; i-- {
			if index[i]++; index[i] < v.size[i] {
				break
			}
			index[i] = 0
		}
	}
	return out
}
