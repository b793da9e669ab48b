-- Notes that a recipient was sent a notification and has not acknowledged it.
--
-- KEYS  1 the notification (hash)  2 what is pending, by its time (zset)  3 the figures (hash)
-- ARGV  1 notification id  2 scoped user  3 JSON  4 sent, ms  5 expires, s  6 TTL of the hash, s
-- gives 1 if it was not pending already

local data, sent, member = 'data:' .. ARGV[2], 'sent:' .. ARGV[2], ARGV[1] .. ':' .. ARGV[2]
local found = redis.call('HMGET', KEYS[1], 'user', 'data', data)
redis.call('HLEN', KEYS[3])

-- The first recipient has the fields and the member that every version knows, the others their own beside them.
local owner, is_new = found[1], not found[3]
local first = owner == ARGV[2] or (not owner and is_new)
if first then
    data, sent, member, is_new = 'data', 'sent', ARGV[1], not found[2]
end
-- The first write: what a full server refuses, and where this key shows its type.
redis.call('ZADD', KEYS[2], ARGV[5], member)
if first then
    redis.call('HSET', KEYS[1], data, ARGV[3], sent, ARGV[4], 'user', ARGV[2])
else
    redis.call('HSET', KEYS[1], data, ARGV[3], sent, ARGV[4])
end
redis.call('EXPIRE', KEYS[1], math.max(tonumber(ARGV[6]), redis.call('TTL', KEYS[1])))
if is_new then
    redis.call('HINCRBY', KEYS[3], 'total_tracked', 1)
    return 1
end
return 0
