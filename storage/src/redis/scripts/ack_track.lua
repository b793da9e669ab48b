-- Notes that a recipient was sent a notification and has not acknowledged it.
--
-- KEYS  1 the notification (hash)  2 what is pending, by its time (zset)  3 the figures (hash)
-- ARGV  1 notification id  2 scoped user  3 JSON  4 sent, ms  5 expires, s  6 TTL of the hash, s
-- gives 1 if it was not pending already

local owner = redis.call('HGET', KEYS[1], 'user')
redis.call('ZSCORE', KEYS[2], ARGV[1])
redis.call('HLEN', KEYS[3])

-- The first recipient has the fields and the member that every version knows, the others their own beside them.
local data, sent, member = 'data', 'sent', ARGV[1]
local first = owner == ARGV[2] or (not owner and redis.call('HEXISTS', KEYS[1], 'data:' .. ARGV[2]) == 0)
if not first then
    data, sent, member = 'data:' .. ARGV[2], 'sent:' .. ARGV[2], ARGV[1] .. ':' .. ARGV[2]
end
local new = redis.call('HSET', KEYS[1], data, ARGV[3])
redis.call('HSET', KEYS[1], sent, ARGV[4])
if first then
    redis.call('HSET', KEYS[1], 'user', ARGV[2])
end
redis.call('EXPIRE', KEYS[1], math.max(tonumber(ARGV[6]), redis.call('TTL', KEYS[1])))
redis.call('ZADD', KEYS[2], ARGV[5], member)
if new > 0 then
    redis.call('HINCRBY', KEYS[3], 'total_tracked', 1)
end
return new
