-- Takes entries out of a mailbox by their ids; those that are gone already do no harm.
--
-- KEYS  1 the stream  2 its meta hash  3 mailboxes by what is due (zset)  4 the figures (hash)
-- ARGV  1 scoped key  2 under which figure to count them  3 TTL of the meta hash, s  4… stream ids
-- gives removed, depth

local before = redis.call('XLEN', KEYS[1])
local known = tonumber(redis.call('HGET', KEYS[2], 'depth') or 0) or 0
redis.call('ZSCORE', KEYS[3], ARGV[1])
redis.call('HLEN', KEYS[4])

local removed = redis.call('XDEL', KEYS[1], unpack(ARGV, 4))
local depth = before - removed
if depth > 0 then
    redis.call('HDEL', KEYS[2], unpack(ARGV, 4))
end
settle(known, depth, nil, nil, ARGV[3])
if removed > 0 then
    redis.call('HINCRBY', KEYS[4], ARGV[2], removed)
end
if known > before then
    redis.call('HINCRBY', KEYS[4], 'expired', known - before)
end
return {removed, depth}
