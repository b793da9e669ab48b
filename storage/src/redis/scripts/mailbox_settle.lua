-- What is to be done after entries left a mailbox. KEYS and ARGV[1] as below; `known` is the depth that was last
-- noted, `depth` what it is, `due` when the next entry expires and `look` when to look at the mailbox again, or nil to
-- leave both as they are, `kept` the TTL of the meta hash.
local function settle(known, depth, due, look, kept)
    if depth > 0 then
        if due then
            redis.call('HSET', KEYS[2], 'depth', depth, 'due', string.format('%.0f', math.floor(due)))
        elseif depth ~= known then
            redis.call('HSET', KEYS[2], 'depth', depth)
        end
        if depth ~= known then
            redis.call('HINCRBY', KEYS[4], 'depth', depth - known)
        end
        if known == 0 then
            -- The hash is new: another writer's mailbox.
            redis.call('EXPIRE', KEYS[2], kept)
        end
        if due then
            redis.call('ZADD', KEYS[3], string.format('%.0f', look), ARGV[1])
        end
        return
    end
    redis.call('DEL', KEYS[1], KEYS[2])
    redis.call('ZREM', KEYS[3], ARGV[1])
    if redis.call('EXISTS', KEYS[3]) == 0 then
        -- No mailbox is left: whatever the figure says, this is so.
        redis.call('HSET', KEYS[4], 'depth', 0)
    elseif known > 0 then
        redis.call('HINCRBY', KEYS[4], 'depth', -known)
    end
end

